package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A release is what the install step has made of the code: the folder built.
type release struct {
	Name  string // of the manifest
	Build string // a fingerprint of the sources
	Page  []byte // the finished page
	files fs.FS  // the fingerprinted assets
	mode  mode
}

// An item is a line of the catalogue.
type item struct {
	Article string `json:"article"`
	Name    string `json:"name"`
	Group   string `json:"group"`
	Cents   int    `json:"cents"`
}

// Price returns the price for people.
func (i item) Price() string { return fmt.Sprintf("%d.%02d", i.Cents/100, i.Cents%100) }

// A mode is a fault that a release is to have, to see what a deployment makes
// of it. The file mode of the code holds it: a word and, for some, seconds.
type mode struct {
	Fault string
	After time.Duration // when it ends or begins, for those that have a time
}

// The faults. Another one, install-fails, is the install script's.
const (
	faultNone       = ""
	faultNeverUp    = "never-up"    // /up answers 503
	faultSlowStart  = "slow-start"  // /up answers 503 for a time
	faultDies       = "dies"        // the process ends after a time, healthy until then
	faultBrokenPage = "broken-page" // the page answers 500, /up does not show it
	faultStubborn   = "stubborn"    // SIGTERM is ignored
)

// errNotInstalled says that the install step has not run.
var errNotInstalled = errors.New("not installed")

// loadRelease reads the release from the folder of the code.
func loadRelease(dir string) (*release, error) {
	built := filepath.Join(dir, "built")
	manifest, err := os.ReadFile(filepath.Join(built, "manifest"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNotInstalled
	}
	if err != nil {
		return nil, err
	}
	values := map[string]string{}
	for line := range strings.Lines(string(manifest)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		values[name] = value
	}
	r := &release{Name: values["release"], Build: values["build"], files: os.DirFS(built)}
	if r.Name == "" || r.Build == "" {
		return nil, fmt.Errorf("manifest: no release or no build in %q", manifest)
	}
	if r.mode, err = parseMode(values["mode"]); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	r.Page, err = renderPage(built, r)
	return r, err
}

// renderPage fills the template with the catalogue.
func renderPage(built string, r *release) ([]byte, error) {
	text, err := os.ReadFile(filepath.Join(built, "catalogue.json"))
	if err != nil {
		return nil, err
	}
	var items []item
	if err := json.Unmarshal(text, &items); err != nil {
		return nil, fmt.Errorf("catalogue: %w", err)
	}
	page, err := template.ParseFiles(filepath.Join(built, "page.html"))
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = page.Execute(&out, map[string]any{"Release": r.Name, "Build": r.Build, "Items": items})
	return out.Bytes(), err
}

func parseMode(text string) (mode, error) {
	fault, number, timed := strings.Cut(text, " ")
	m := mode{Fault: fault}
	switch fault {
	case faultNone, faultNeverUp, faultBrokenPage, faultStubborn:
		if timed {
			return mode{}, fmt.Errorf("mode %q: %s takes no time", text, fault)
		}
		return m, nil
	case faultSlowStart, faultDies:
		seconds, err := strconv.ParseFloat(number, 64)
		if err != nil || seconds < 0 {
			return mode{}, fmt.Errorf("mode %q: want seconds after %s", text, fault)
		}
		m.After = time.Duration(seconds * float64(time.Second))
		return m, nil
	}
	return mode{}, fmt.Errorf("mode %q: unknown", text)
}
