package plugintest

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/teal-deploy/teal/plugins"
)

// A mortal is a runtime whose process can be killed. What it knows of
// containers is shared with the next process, as it should be.
type mortal struct {
	plugins.Runtime

	killed chan struct{}
	death  error // what calls end with

	mu   *sync.Mutex
	made map[string]plugins.Container
}

func (m *mortal) Create(_ context.Context, _ plugins.Host, spec plugins.Spec) (plugins.Container, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c, ok := m.made[spec.Name]; ok {
		return c, nil
	}
	c := plugins.Container{ID: spec.Name + time.Now().String(), Name: spec.Name, Labels: spec.Labels, Status: plugins.StatusRunning, PID: 7}
	m.made[spec.Name] = c
	return c, nil
}

func (m *mortal) Exec(_ context.Context, _ plugins.Host, _ string, cmd *plugins.Command) error {
	if cmd.Args[0] == "echo" {
		_, err := io.WriteString(cmd.Stdout, cmd.Args[1]+"\n")
		return err
	}
	if _, err := io.WriteString(cmd.Stdout, "up\n"); err != nil {
		return err
	}
	<-m.killed
	return m.death
}

func (m *mortal) List(_ context.Context, _ plugins.Host, labels map[string]string) (found []plugins.Container, _ error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.made {
		if c.HasLabels(labels) {
			found = append(found, c)
		}
	}
	return found, nil
}

func (m *mortal) Remove(_ context.Context, _ plugins.Host, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, c := range m.made {
		if c.ID == id {
			delete(m.made, name)
		}
	}
	return nil
}

func TestCrashTellsWhatAnotherProcessDoesNotFind(t *testing.T) {
	died := &plugins.Error{Kind: plugins.Unavailable, Err: errors.New("plugin test died")}
	for _, tt := range []struct {
		name  string
		death error
		next  func(next *mortal) // spoils it
		err   error              // of starting it again
		want  []string           // nothing: all is well
	}{
		{name: "well", death: died},
		{name: "calls end as if nothing had happened", want: []string{`a call whose plugin was killed is no error of kind "unavailable": nil`}},
		{name: "it does not start again", death: died, err: errors.New("no more"), want: []string{"no more"}},
		{
			name: "it has forgotten", death: died,
			next: func(m *mortal) { m.made = map[string]plugins.Container{} },
			want: []string{"the container is [], before: "},
		},
		{
			name: "it takes another one for its own", death: died,
			next: func(m *mortal) {
				for name, c := range m.made {
					c.PID = 8
					m.made[name] = c
				}
			},
			want: []string{"the container is [", "before: "},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			first := &mortal{killed: make(chan struct{}), death: tt.death, mu: new(sync.Mutex), made: map[string]plugins.Container{}}
			s := suite{rt: first, h: Local("here"), label: "teal-crash", opts: Options{
				Timeout: 5 * time.Second,
				Crash: func(context.Context) (plugins.Runtime, error) {
					close(first.killed)
					next := *first
					if tt.next != nil {
						tt.next(&next)
					}
					return &next, tt.err
				},
			}}
			c := s.check(t.Context(), "crash", tidily((*suite).crash))
			if len(tt.want) == 0 && c.Err != nil || len(tt.want) > 0 && c.Err == nil {
				t.Fatal(c.Err)
			}
			for _, want := range tt.want {
				if !strings.Contains(c.Err.Error(), want) {
					t.Errorf("the error is %v, not %s", c.Err, want)
				}
			}
		})
	}
}

func TestAbilityThatIsRefusedHonestlyIsNotClaimed(t *testing.T) {
	unsupported := &plugins.Error{Kind: plugins.Unsupported, Err: errors.New("it cannot")}
	other := errors.New("it broke")
	for _, tt := range []struct {
		name string
		opts Options
		err  error // of Create
		want error
	}{
		{"claimed", Options{Discover: true}, nil, nil},
		{"found out", Options{Discover: true}, unsupported, errLacking},
		{"known", Options{Lacks: []Ability{Limits}}, unsupported, errLacking},
		{"broken", Options{Discover: true}, other, other},
		{"not known", Options{}, unsupported, unsupported},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := suite{rt: &mortal{mu: new(sync.Mutex)}, h: Local("here"), opts: tt.opts}
			if err := s.claimed(t.Context(), Limits, plugins.Spec{}, tt.err); !errors.Is(err, tt.want) || err != nil && tt.want == nil {
				t.Errorf("the error is %v, not %v", err, tt.want)
			}
		})
	}
	s := suite{rt: &mortal{mu: new(sync.Mutex)}, h: Local("here"), opts: Options{Lacks: []Ability{Limits}}}
	if err := s.claimed(t.Context(), Limits, plugins.Spec{}, nil); err == nil || errors.Is(err, errLacking) {
		t.Errorf("what it lacks, it took: %v", err)
	}
}

func TestPortThatIsFound(t *testing.T) {
	s := suite{h: Local("here")}
	at, err := s.free(t.Context())
	if err != nil || at.Port() < 10000 || at.Port() >= 20000 {
		t.Fatalf("%v, %v", at, err)
	}
	for range 2 {
		l, err := net.Listen("tcp", at.String())
		if err != nil {
			t.Fatal(err)
		}
		if !s.listens(t.Context(), at) {
			t.Errorf("%v seems to be free", at)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := (&suite{h: everywhere{Local("here")}}).free(t.Context()); err == nil || err.Error() != "no port of the host is free" {
		t.Errorf("the error is %v", err)
	}
}

// everywhere is a host where somebody answers at every port.
type everywhere struct{ plugins.Host }

func (everywhere) DialContext(context.Context, string, string) (net.Conn, error) {
	here, _ := net.Pipe()
	return here, nil
}

func TestRuntimeWithoutImagesIsAskedForNone(t *testing.T) {
	rt := &imageless{}
	s := suite{rt: rt, h: Local("here")}
	img, err := s.pull(t.Context())
	if diff := cmp.Diff(plugins.Image{}, img); diff != "" || err != nil {
		t.Errorf("%v, %s", err, diff)
	}
	if diff := cmp.Diff([]string{"teal.test/no-such-image:1"}, rt.asked); diff != "" {
		t.Error(diff)
	}
}

type imageless struct {
	plugins.Runtime

	asked []string
}

func (*imageless) Probe(context.Context, plugins.Host) (plugins.Info, error) {
	return plugins.Info{Name: "imageless", Version: "1"}, nil
}

func (r *imageless) Pull(_ context.Context, _ plugins.Host, req plugins.PullRequest) (plugins.Image, error) {
	r.asked = append(r.asked, req.Image)
	return plugins.Image{}, plugins.NotFound
}
