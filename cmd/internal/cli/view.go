package cli

import (
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/teal-deploy/teal/cmd/internal/display"
	"github.com/teal-deploy/teal/orchestrator"
)

// view returns what shows a run: the terminal, lines or JSON, and the journal.
// A journal that cannot be kept is a warning and no reason not to deploy.
func (o *options) view(command string, req *orchestrator.Request) display.Renderer {
	req.Run = orchestrator.NewRunID(time.Now())
	var names display.Names
	for _, h := range req.Hosts {
		names.Hosts = append(names.Hosts, h.Name)
	}
	for _, b := range req.Balancers {
		if !slices.Contains(names.Hosts, b.Name) {
			names.Balancers = append(names.Balancers, b.Name)
		}
	}
	shown := display.New(display.Options{
		Out: o.streams.Out, JSON: o.json, Title: command + " " + req.File.App().Name, Names: names, Getenv: os.Getenv,
	})
	dir, err := display.JournalDir(os.Getenv)
	if err == nil {
		var journal display.Renderer
		if journal, err = display.OpenJournal(dir, req.Run); err == nil {
			return display.Tee(shown, journal)
		}
	}
	fmt.Fprintf(o.streams.Err, "teal: no journal of this run is kept: %v\n", err)
	return shown
}
