package image_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/teal-deploy/teal/orchestrator/image"
	"github.com/teal-deploy/teal/plugins"
)

// An engine's program: $1 is the id that it has for shop:1, $2 the archive that
// it writes. It notes how it was called.
const program = `#!/bin/sh
echo "$*" >>'%[1]s/calls'
case $2 in
inspect) if [ "$5" = shop:1 ]; then cat '%[1]s/id'; else echo "Error: No such image: $5" >&2; exit 1; fi ;;
save) if [ "$3" = "$(cat '%[1]s/id')" ]; then cat '%[1]s/archive'; else exit 125; fi ;;
esac
`

// A fakeEngine is a program of an engine in PATH.
type fakeEngine struct {
	t   *testing.T
	dir string
}

// engines replaces PATH by a folder with programs of engines.
func engines(t *testing.T, names ...string) map[string]*fakeEngine {
	t.Helper()
	path := t.TempDir()
	t.Setenv("PATH", path+":/usr/bin:/bin")
	found := map[string]*fakeEngine{}
	for _, name := range []string{"docker", "podman"} {
		found[name] = &fakeEngine{t, t.TempDir()}
		script := "#!/bin/sh\nexit 127\n"
		for _, n := range names {
			if n == name {
				script = fmt.Sprintf(program, found[name].dir)
			}
		}
		if err := os.WriteFile(filepath.Join(path, name), []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return found
}

// has gives the engine an image.
func (e *fakeEngine) has(id string, archive []byte) {
	e.t.Helper()
	if err := errors.Join(
		os.WriteFile(filepath.Join(e.dir, "id"), []byte(id+"\n"), 0o600),
		os.WriteFile(filepath.Join(e.dir, "archive"), archive, 0o600),
	); err != nil {
		e.t.Fatal(err)
	}
}

func (e *fakeEngine) calls() []string {
	text, _ := os.ReadFile(filepath.Join(e.dir, "calls"))
	return strings.Split(strings.TrimSpace(string(text)), "\n")
}

func TestImageOfTheOperatorsEngine(t *testing.T) {
	for _, engine := range []string{"docker", "podman"} {
		t.Run(engine, func(t *testing.T) {
			e := engines(t, engine)[engine]
			layer := layerOf(t, "a", 1000)
			e.has("sha256:4711", savedOf(t, nil, layer))
			l := image.Local{Name: "shop:1", Dir: t.TempDir()}
			u, p := pack(t, l)
			fetch(t, serve(t, p))
			want := digestOf(configOf(t, layer))
			if got, err := u.Digest(t.Context()); err != nil || got != want {
				t.Errorf("digest is %s, %v", got, err)
			}
			calls := e.calls()
			if len(calls) != 2 || calls[1] != "image save sha256:4711" {
				t.Errorf("calls are %q", calls)
			}

			// What it is known by need not be found out twice.
			again := image.NewUpload(l)
			if got, err := again.Digest(t.Context()); err != nil || got != want {
				t.Errorf("digest is %s, %v", got, err)
			}
			if got := e.calls(); len(got) != 3 {
				t.Errorf("calls are %q", got)
			}
			// It is another image now.
			other := layerOf(t, "b", 1000)
			e.has("sha256:4712", savedOf(t, nil, other))
			next := image.NewUpload(l)
			if got, err := next.Digest(t.Context()); err != nil || got != digestOf(configOf(t, other)) {
				t.Errorf("digest of the next one is %s, %v", got, err)
			}
			if err := errors.Join(again.Close(), next.Close()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestImageThatNobodyHas(t *testing.T) {
	engines(t, "docker")["docker"].has("sha256:1", nil)
	_, err := image.NewUpload(image.Local{Name: "shop:2"}).Digest(t.Context())
	if !errors.Is(err, plugins.NotFound) {
		t.Fatal(err)
	}
	for _, words := range []string{"upload shop:2", "docker says Error: No such image: shop:2", "podman", "image.archive"} {
		if !strings.Contains(err.Error(), words) {
			t.Errorf("%q does not say %q", err, words)
		}
	}
	t.Setenv("PATH", t.TempDir())
	_, err = image.NewUpload(image.Local{Name: "shop:2"}).Digest(t.Context())
	if !errors.Is(err, plugins.NotFound) || !strings.Contains(err.Error(), "docker is not installed; podman is not installed") {
		t.Error(err)
	}
}

func TestMemoryThatIsWrongAboutAnImage(t *testing.T) {
	e := engines(t, "docker")["docker"]
	e.has("sha256:1", savedOf(t, nil, layerOf(t, "a", 10)))
	dir := t.TempDir()
	known := filepath.Join(dir, "known.json")
	if err := os.WriteFile(known, []byte(`{"images":{"docker sha256:1":"sha256:0"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	u := image.NewUpload(image.Local{Name: "shop:1", Dir: dir})
	if got, err := u.Digest(t.Context()); err != nil || got != "sha256:0" {
		t.Fatalf("%s, %v", got, err)
	}
	if _, err := u.Pack(t.Context()); !errors.Is(err, plugins.Conflict) {
		t.Errorf("it was packed: %v", err)
	}
	if err := u.Close(); err != nil {
		t.Error(err)
	}
	pack(t, image.Local{Name: "shop:1", Dir: dir}) // by now it is right
}
