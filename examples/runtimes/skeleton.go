package runtimes

import (
	"bytes"
	"embed"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/teal-deploy/teal/plugins/sdk"
)

// The examples are what skeletons are made of.
//
//go:embed process/main.go process/process.sh process/conformance_test.go
//go:embed python/teal-runtime-process python/teal_runtime.py python/broker.proto python/messages.sh
//go:embed shell/teal-runtime-process.exec
var examples embed.FS

// goVersion is the least version of Go that teal's module takes.
const goVersion = "1.26.0"

// A Skeleton is a plugin to begin with: processes on the host take the part of
// containers, and it passes the conformance test as it is.
type Skeleton struct {
	Files []File
	// Next are the commands, lines for a shell in the skeleton's folder, that
	// make a program of it.
	Next    []string
	Program string // the path of the program, which may have to be built
}

// A File is one of a Skeleton.
type File struct {
	Path       string // in the skeleton's folder
	Text       []byte
	Executable bool
}

// Languages returns the languages that there are skeletons in.
func Languages() []string { return []string{"go", "python", "sh"} }

// NewSkeleton returns a plugin of that name, which loader.CheckName takes, in
// one of Languages. Version is that of teal's module that a Go module shall
// require; "" leaves it to go mod tidy.
func NewSkeleton(language, name, version string) (Skeleton, error) {
	program := "teal-runtime-" + name
	switch language {
	case "go":
		return Skeleton{
			Files: []File{
				{Path: "go.mod", Text: module(program, version)},
				example("process/main.go", name),
				example("process/process.sh", name),
				example("process/conformance_test.go", name),
			},
			Next:    []string{"go mod tidy", "go test", "go build"},
			Program: program,
		}, nil
	case "python":
		return Skeleton{
			Files: []File{
				example("python/teal-runtime-process", name),
				example("python/teal_runtime.py", name),
				example("python/messages.sh", name),
				example("python/broker.proto", name),
				{Path: "runtime.proto", Text: []byte(sdk.Protocol())},
				example("process/process.sh", name),
			},
			Next:    []string{"./messages.sh"},
			Program: program,
		}, nil
	case "sh":
		return Skeleton{Files: []File{inOne(name)}, Program: program + ".exec"}, nil
	}
	return Skeleton{}, fmt.Errorf("there is no skeleton in %q, but in %s", language, strings.Join(Languages(), ", "))
}

func module(program, version string) []byte {
	text := fmt.Sprintf("module example.com/%s\n\ngo %s\n", program, goVersion)
	if version != "" {
		text += fmt.Sprintf("\nrequire github.com/teal-deploy/teal %s\n", version)
	}
	return []byte(text)
}

// example is a file of the examples, with the plugin's name in the place of
// the example's.
func example(from, name string) File {
	text, err := examples.ReadFile(from)
	if err != nil {
		panic(err) // it is embedded, or this package does not compile
	}
	rename := strings.NewReplacer(
		"teal-runtime-process", "teal-runtime-"+name,
		"teal-process", "teal-"+name,
		`"process"`, `"`+name+`"`,
	)
	base := path.Base(from)
	return File{
		Path:       rename.Replace(base),
		Text:       []byte(rename.Replace(string(text))),
		Executable: bytes.HasPrefix(text, []byte("#!")),
	}
}

// inOne is the shell script with process.sh in it: a plugin that is one file
// can be put into a folder of plugins, and its sum covers all of it.
func inOne(name string) File {
	const beside, end = `script=$(cat "$(dirname "$0")/process.sh")`, "end of process.sh"
	file, script := example("shell/teal-runtime-process.exec", name), example("process/process.sh", name)
	inside := "process_sh() {\n\tcat <<'" + end + "'\n" + string(script.Text) + end + "\n}\nscript=$(process_sh)"
	file.Text = []byte(strings.Replace(string(file.Text), beside, inside, 1))
	return file
}

// Write writes the files into a folder, which must be there.
func (s Skeleton) Write(folder string) error {
	for _, f := range s.Files {
		mode := fs.FileMode(0o644)
		if f.Executable {
			mode = 0o755
		}
		if err := os.WriteFile(filepath.Join(folder, f.Path), f.Text, mode); err != nil {
			return err
		}
	}
	return nil
}
