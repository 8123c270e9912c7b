package cli

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/teal-deploy/teal/orchestrator"
	"github.com/teal-deploy/teal/plugins"
)

const (
	refersWith = "\nYour own configuration refers to the app with:\n\n    mode http\n    default_backend shop\n"
	lb1Ready   = "lb1: ready\n"
	lb2Missing = "lb2: teal's part is missing, or not as it should be: it is to be written, and reloaded once\n" +
		"  warning   reloads lose requests\n"
	lb2Made   = "lb2: configuration written, reloaded and verified\n"
	lb3Broken = "lb3: cannot be set up: use haproxy: no admin socket:\n  add stats socket\n"
)

func TestSetup(t *testing.T) {
	type proxies = []orchestrator.ProxySetup
	const lines = "mode http\ndefault_backend shop\n"
	ready := orchestrator.ProxySetup{Host: "lb1", Usage: lines}
	bare := orchestrator.ProxySetup{Host: "lb2", Usage: lines, Missing: true, Warnings: []string{"reloads lose requests"}}
	made := orchestrator.ProxySetup{Host: "lb2", Usage: lines, Changed: true}
	mute := orchestrator.ProxySetup{Host: "lb3", Usage: lines, Missing: true, Err: &plugins.Error{
		Op: "use haproxy", Host: "lb3", Kind: plugins.Denied, Err: errors.New("no admin socket:\nadd stats socket"),
	}}
	tests := []struct {
		name          string
		json, yes     bool
		before, after proxies // nil: nobody may ask for it
		answer        any     // bool or error; nil: nobody may ask
		question      string
		outcome       orchestrator.Outcome
		out           string
	}{
		{
			name: "all is ready", before: proxies{ready},
			outcome: orchestrator.OutcomeDone, out: lb1Ready + refersWith,
		},
		{
			name: "agreed", before: proxies{ready, bare}, answer: true, after: proxies{ready, made},
			question: "Put teal's part into the configuration of 1 proxy?",
			outcome:  orchestrator.OutcomeDone, out: lb1Ready + lb2Missing + refersWith + lb1Ready + lb2Made,
		},
		{
			name: "refused", before: proxies{bare, bare}, answer: false,
			question: "Put teal's part into the configuration of 2 proxies?",
			outcome:  orchestrator.OutcomeChanges, out: lb2Missing + lb2Missing + refersWith,
		},
		{
			name: "nobody to ask", before: proxies{bare}, answer: errNoTerminal,
			question: "Put teal's part into the configuration of 1 proxy?",
			outcome:  orchestrator.OutcomeChanges, out: lb2Missing + refersWith,
		},
		{
			name: "with an error that asking does not help", before: proxies{mute},
			outcome: orchestrator.OutcomeFailed, out: lb3Broken + refersWith,
		},
		{
			name: "the others are set up", before: proxies{mute, bare}, answer: true, after: proxies{mute, made},
			question: "Put teal's part into the configuration of 1 proxy?",
			outcome:  orchestrator.OutcomeFailed, out: lb3Broken + lb2Missing + refersWith + lb3Broken + lb2Made,
		},
		{
			name: "with --yes", yes: true, after: proxies{ready, made},
			outcome: orchestrator.OutcomeDone, out: lb1Ready + lb2Made + refersWith,
		},
		{
			name: "with --json nobody is asked", json: true, before: proxies{bare, mute},
			outcome: orchestrator.OutcomeFailed,
			out: `{"changed":false,"host":"lb2","missing":true,"schema":1,"usage":"mode http\ndefault_backend shop\n","warnings":["reloads lose requests"]}
{"changed":false,"error":"lb3: use haproxy: no admin socket:\nadd stats socket","host":"lb3","missing":true,"schema":1,"usage":"mode http\ndefault_backend shop\n","warnings":[]}
`,
		},
		{
			name: "the lines differ", before: proxies{ready, {Host: "web1", Usage: "  location / {\n    proxy_pass http://shop;\n  }\n"}, {Host: "web2"}},
			outcome: orchestrator.OutcomeDone,
			out: lb1Ready + "web1: ready\nweb2: ready\n\nYour own configuration on lb1 refers to the app with:\n\n    mode http\n    default_backend shop\n" +
				"\nYour own configuration on web1 refers to the app with:\n\n    location / {\n      proxy_pass http://shop;\n    }\n",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			var asked string
			s := setup{
				out: &out, json: tt.json, yes: tt.yes,
				proxies: func(_ context.Context, apply bool) ([]orchestrator.ProxySetup, error) {
					found := tt.before
					if apply {
						found = tt.after
					}
					if found == nil {
						t.Fatalf("setup was called with apply %v", apply)
					}
					return slices.Clone(found), nil
				},
				ask: func(_ context.Context, question string) (bool, error) {
					asked = question
					switch answer := tt.answer.(type) {
					case bool:
						return answer, nil
					case error:
						return false, answer
					}
					t.Fatalf("asked: %s", question)
					return false, nil
				},
			}
			outcome, err := s.run(t.Context())
			if err != nil || outcome != tt.outcome || asked != tt.question {
				t.Errorf("%q after %q, %v", outcome, asked, err)
			}
			if diff := cmp.Diff(tt.out, out.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestSetupEndsWithWhatEndsIt(t *testing.T) {
	ended := errors.New("ended")
	for _, at := range []string{"looking", "asking", "applying"} {
		s := setup{
			out: &bytes.Buffer{},
			proxies: func(_ context.Context, apply bool) ([]orchestrator.ProxySetup, error) {
				if at == "looking" || apply {
					return nil, ended
				}
				return []orchestrator.ProxySetup{{Host: "lb1", Missing: true}}, nil
			},
			ask: func(context.Context, string) (bool, error) {
				if at == "asking" {
					return true, ended
				}
				return true, nil
			},
		}
		if outcome, err := s.run(t.Context()); !errors.Is(err, ended) {
			t.Errorf("%s: %q, %v", at, outcome, err)
		}
	}
}
