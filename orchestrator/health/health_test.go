package health_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/teal-deploy/teal/orchestrator/health"
	"github.com/teal-deploy/teal/orchestrator/spec"
	"github.com/teal-deploy/teal/plugins"
	"github.com/teal-deploy/teal/plugins/plugintest"
)

// running is a container that runs in process pid.
func running(pid int) plugins.Container {
	return plugins.Container{ID: "c1", Status: plugins.StatusRunning, PID: pid}
}

// An app is a container whose behaviour depends on the time since it began.
type app struct {
	began     time.Time
	container func(after time.Duration) (plugins.Container, error)
	exec      func(after time.Duration) error
	execs     int
}

func (a *app) subject() health.Subject {
	a.began = time.Now()
	return health.Subject{
		Host: plugintest.Local("web1"),
		Container: func(context.Context) (plugins.Container, error) {
			if a.container == nil {
				return running(7), nil
			}
			return a.container(time.Since(a.began))
		},
		Exec: func(context.Context, []string) error {
			a.execs++
			if a.exec == nil {
				return nil
			}
			return a.exec(time.Since(a.began))
		},
	}
}

func failsUntil(when time.Duration) func(time.Duration) error {
	return func(after time.Duration) error {
		if after < when {
			return &plugins.ExitError{Host: "web1", Args: []string{"bin/up"}, Code: 3, Stderr: []byte("warming\nnot ready\n")}
		}
		return nil
	}
}

var usual = spec.Test{
	Within: 60 * time.Second, Interval: time.Second, Timeout: 5 * time.Second, Successes: 2, Stable: 3 * time.Second,
	Checks: []spec.Check{{Exec: []string{"bin/up", "--quiet"}}},
}

func with(change func(*spec.Test)) spec.Test {
	t := usual
	change(&t)
	return t
}

func TestWait(t *testing.T) {
	tests := []struct {
		name string
		app  app
		test spec.Test
		want string        // error, "" for none
		took time.Duration // exactly: time is simulated
	}{
		{
			name: "counts no stable time of a subject that never failed when the deadline is shorter",
			test: with(func(s *spec.Test) { s.Within = 2500 * time.Millisecond }),
			want: "test: passed 2 of 2 times in a row, to stay so for 3s (3 attempts in 2.5s)", took: 2500 * time.Millisecond,
		},
		{name: "is over after the stable time", test: usual, took: 3 * time.Second},
		{
			name: "needs the successes even when no stable time is asked for",
			test: with(func(s *spec.Test) { s.Stable, s.Successes = 0, 3 }), took: 2 * time.Second,
		},
		{
			name: "shortens the last pause to the stable time",
			test: with(func(s *spec.Test) { s.Interval = 2 * time.Second }), took: 3 * time.Second,
		},
		{
			name: "passes a container without checks when it keeps running",
			test: with(func(s *spec.Test) { s.Checks = nil }), took: 3 * time.Second,
		},
		{
			name: "asks more often while the container is starting",
			app:  app{exec: failsUntil(300 * time.Millisecond)}, test: usual, took: 3375 * time.Millisecond,
		},
		{
			name: "begins again when a check fails in between",
			app: app{exec: func(after time.Duration) error {
				if after == 2*time.Second {
					return errors.New("hiccup")
				}
				return nil
			}},
			test: usual, took: 2*time.Second + 125*time.Millisecond + 3*time.Second,
		},
		{
			name: "gives up at the deadline with the last reason",
			app:  app{exec: failsUntil(time.Hour)}, test: usual,
			want: `exec bin/up: exited with code 3: "not ready" (63 attempts in 1m0s)`, took: time.Minute,
		},
		{
			name: "gives up when the stable time cannot be reached",
			app: app{exec: func(after time.Duration) error {
				if after < 8*time.Second {
					return errors.New("cold")
				}
				return nil
			}},
			test: with(func(s *spec.Test) { s.Within = 10 * time.Second }),
			want: "test: passed 2 of 2 times in a row, to stay so for 3s; before that exec bin/up: cold (13 attempts in 10s)", took: 10 * time.Second,
		},
		{
			name: "gives up when the first round ends well after the deadline",
			app: app{container: func(time.Duration) (plugins.Container, error) {
				time.Sleep(12 * time.Second)
				return running(7), nil
			}},
			test: with(func(s *spec.Test) { s.Within = 10 * time.Second }),
			want: "test: passed 1 of 2 times in a row, to stay so for 3s (1 attempt in 12s)", took: 12 * time.Second,
		},
		{
			name: "fails at once when the container has exited",
			app: app{container: func(after time.Duration) (plugins.Container, error) {
				if after >= 2*time.Second {
					return plugins.Container{Status: plugins.StatusExited, ExitCode: 137}, nil
				}
				return running(7), nil
			}},
			test: usual,
			want: "container: it exited with code 137 (3 attempts in 2s)", took: 2 * time.Second,
		},
		{
			name: "fails at once when the container is gone",
			app: app{container: func(time.Duration) (plugins.Container, error) {
				return plugins.Container{}, &plugins.Error{Op: "inspect c1", Kind: plugins.NotFound}
			}},
			test: usual, want: "container: it is gone (1 attempt in 0s)",
		},
		{
			name: "fails at once when the image has no health check",
			test: with(func(s *spec.Test) { s.Checks = []spec.Check{{Engine: true}} }),
			want: "engine: the image has no HEALTHCHECK (1 attempt in 0s)",
		},
		{
			name: "waits for the engine's opinion",
			app: app{container: func(after time.Duration) (plugins.Container, error) {
				c := running(7)
				c.Health = plugins.HealthStarting
				if after >= time.Second {
					c.Health = plugins.HealthHealthy
				}
				return c, nil
			}},
			test: with(func(s *spec.Test) { s.Checks = []spec.Check{{Engine: true}} }),
			took: 1875*time.Millisecond + 3*time.Second,
		},
		{
			name: "begins again after a restart",
			app: app{container: func(after time.Duration) (plugins.Container, error) {
				return running(7 + int(after/(2500*time.Millisecond))*min(1, int(after/time.Second))), nil
			}},
			test: with(func(s *spec.Test) { s.Within = 8 * time.Second }),
			want: "test: passed 2 of 2 times in a row, to stay so for 3s; before that container: it was restarted 2 times (10 attempts in 8s)", took: 8 * time.Second,
		},
		{
			name: "says that the container does not run",
			app: app{container: func(time.Duration) (plugins.Container, error) {
				return plugins.Container{Status: plugins.StatusOther}, nil
			}},
			test: with(func(s *spec.Test) { s.Within = time.Second }),
			want: "container: it does not run (4 attempts in 1s)", took: time.Second,
		},
		{
			name: "tells a bad request apart",
			test: with(func(s *spec.Test) { s.Checks = []spec.Check{{TCP: 80}} }),
			want: "tcp 80: the app has no port (1 attempt in 0s)",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := tt.app.subject()
				err := health.Wait(t.Context(), s, tt.test, nil)
				if diff := cmp.Diff(tt.want, text(err)); diff != "" {
					t.Errorf("error (-want +got):\n%s", diff)
				}
				if took := time.Since(tt.app.began); took != tt.took {
					t.Errorf("took %s, want %s", took, tt.took)
				}
			})
		})
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestWaitNamesTheTimeoutOfACheckThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(app).subject()
		s.Exec = func(ctx context.Context, _ []string) error {
			<-ctx.Done()
			return ctx.Err()
		}
		test := with(func(s *spec.Test) { s.Within = 12 * time.Second })
		err := health.Wait(t.Context(), s, test, nil)
		want := "exec bin/up: no answer within 5s (3 attempts in 12s)"
		if diff := cmp.Diff(want, text(err)); diff != "" {
			t.Error(diff)
		}
	})
}

func TestWaitNamesTheTimeoutOfARuntimeThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(app).subject()
		s.Container = func(ctx context.Context) (plugins.Container, error) {
			<-ctx.Done()
			return plugins.Container{}, ctx.Err()
		}
		test := with(func(s *spec.Test) { s.Within, s.Timeout = 6*time.Second, 100*time.Millisecond })
		err := health.Wait(t.Context(), s, test, nil)
		want := "container: the runtime gave no answer within 5s (2 attempts in 6s)"
		if diff := cmp.Diff(want, text(err)); diff != "" {
			t.Error(diff)
		}
	})
}

func TestWaitGivesARuntimeMoreTimeThanTheApp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := app{container: func(time.Duration) (plugins.Container, error) {
			time.Sleep(2 * time.Second)
			return running(7), nil
		}}
		test := with(func(s *spec.Test) { s.Timeout = 100 * time.Millisecond })
		if err := health.Wait(t.Context(), slow.subject(), test, nil); err != nil {
			t.Error(err)
		}
	})
}

func TestWaitReturnsALostConnectionAtOnce(t *testing.T) {
	lost := &plugins.Error{Host: "web1", Op: "inspect", Kind: plugins.Lost, Err: errors.New("connection lost")}
	cases := map[string]app{
		"inspection": {container: func(time.Duration) (plugins.Container, error) { return plugins.Container{}, lost }},
		"check":      {exec: func(time.Duration) error { return lost }},
	}
	for name, a := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				err := health.Wait(t.Context(), a.subject(), usual, nil)
				if !errors.Is(err, plugins.Lost) || time.Since(a.began) != 0 {
					t.Errorf("got %v after %s, want Lost at once", err, time.Since(a.began))
				}
			})
		})
	}
}

func TestWaitReturnsTheCauseWhenTheCallerEndsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		why := errors.New("the operator said stop")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(1500*time.Millisecond, func() { cancel(why) })
		a := app{exec: failsUntil(time.Hour)}
		if err := health.Wait(ctx, a.subject(), usual, nil); !errors.Is(err, why) {
			t.Errorf("got %v, want %v", err, why)
		}
		if took := time.Since(a.began); took != 1500*time.Millisecond {
			t.Errorf("took %s", took)
		}
	})
}

func TestWaitReportsOnlyWhatIsNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := app{exec: failsUntil(4 * time.Second)}
		var lines []string
		if err := health.Wait(t.Context(), a.subject(), usual, func(s string) { lines = append(lines, s) }); err != nil {
			t.Fatal(err)
		}
		want := []string{
			`exec bin/up: exited with code 3: "not ready"`,
			"passed 1 of 2 times in a row, to stay so for 3s",
			"passed 2 of 2 times in a row, to stay so for 3s",
		}
		if diff := cmp.Diff(want, lines); diff != "" {
			t.Error(diff)
		}
	})
}

func TestWaitUsesDefaultsForZeroes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := app{exec: failsUntil(time.Hour)}
		err := health.Wait(t.Context(), a.subject(), spec.Test{Checks: usual.Checks}, nil)
		if took := time.Since(a.began); err == nil || took != time.Minute {
			t.Errorf("got %v after %s, want a failure after one minute", err, took)
		}
		a.exec = nil
		if err := health.Wait(t.Context(), a.subject(), spec.Test{Checks: usual.Checks}, nil); err != nil {
			t.Error(err)
		}
	})
}

func TestErrorKeepsItsParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := app{exec: failsUntil(time.Hour)}
		err := health.Wait(t.Context(), a.subject(), with(func(s *spec.Test) { s.Within = 2 * time.Second }), nil)
		var e *health.Error
		var exit *plugins.ExitError
		if !errors.As(err, &e) || !errors.As(err, &exit) {
			t.Fatalf("got %#v", err)
		}
		got := []any{e.Check, e.Reason, e.Attempts, e.Elapsed, exit.Code}
		want := []any{"exec bin/up", `exited with code 3: "not ready"`, 5, 2 * time.Second, 3}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestErrorSaysThatTheContainerRestartedBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := app{exec: failsUntil(time.Hour), container: func(after time.Duration) (plugins.Container, error) {
			return running(7 + int(after/(1500*time.Millisecond))), nil
		}}
		err := health.Wait(t.Context(), a.subject(), with(func(s *spec.Test) { s.Within = 3 * time.Second }), nil)
		if want := "; the container was restarted 1 time"; !strings.Contains(text(err), want) {
			t.Errorf("%v does not contain %q", err, want)
		}
	})
}

func TestWatch(t *testing.T) {
	tests := []struct {
		name string
		app  app
		port uint16 // is tested as well, and nobody listens there
		want string
		took time.Duration
	}{
		{name: "ends without an error with its context", took: 20 * time.Second},
		{
			name: "forgives two failed rounds",
			app: app{exec: func(after time.Duration) error {
				if s := int(after / time.Second); s%3 != 0 {
					return errors.New("busy")
				}
				return nil
			}},
			took: 20 * time.Second,
		},
		{
			name: "fails with the third failed round in a row",
			app: app{exec: func(after time.Duration) error {
				if after >= 5*time.Second {
					return errors.New("busy")
				}
				return nil
			}},
			want: "exec bin/up: busy (8 attempts in 7s)", took: 7 * time.Second,
		},
		{
			name: "fails at once when the container exited",
			app: app{container: func(after time.Duration) (plugins.Container, error) {
				if after >= 4*time.Second {
					return plugins.Container{Status: plugins.StatusExited, ExitCode: 1}, nil
				}
				return running(7), nil
			}},
			want: "container: it exited with code 1 (5 attempts in 4s)", took: 4 * time.Second,
		},
		{
			name: "fails at once when the container was restarted",
			app: app{container: func(after time.Duration) (plugins.Container, error) {
				return running(7 + int(after/(4*time.Second))), nil
			}},
			want: "container: it was restarted 1 time (5 attempts in 4s)", took: 4 * time.Second,
		},
		{
			name: "goes on though the runtime gives no answer",
			app: app{container: func(after time.Duration) (plugins.Container, error) {
				switch {
				case after < 4*time.Second:
					return running(7), nil
				case after < 8*time.Second:
					return plugins.Container{}, &plugins.Error{Kind: plugins.Invalid}
				}
				return plugins.Container{}, errors.New("the plugin died")
			}},
			took: 20 * time.Second,
		},
		{
			name: "goes on though the runtime cannot run the check",
			app:  app{exec: func(time.Duration) error { return &plugins.Error{Kind: plugins.Unavailable} }},
			took: 20 * time.Second,
		},
		{
			name: "fails by the checks that need no runtime when that gives no answer",
			app: app{container: func(time.Duration) (plugins.Container, error) {
				return plugins.Container{}, errors.New("the plugin died")
			}},
			port: 80,
			want: "tcp 80: web1: dial: nobody listens (3 attempts in 2s)", took: 2 * time.Second,
		},
		{
			name: "tells a lost connection apart",
			app: app{container: func(time.Duration) (plugins.Container, error) {
				return plugins.Container{}, &plugins.Error{Host: "web1", Kind: plugins.Lost}
			}},
			want: "container: web1: lost (1 attempt in 0s)",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				s, test := tt.app.subject(), usual
				if tt.port != 0 {
					s.Host, s.Address = closedHost{s.Host}, netip.AddrPortFrom(netip.IPv6Loopback(), tt.port)
					test.Checks = append(slices.Clone(test.Checks), spec.Check{TCP: tt.port})
				}
				err := health.Watch(ctx, s, test)
				if diff := cmp.Diff(tt.want, text(err)); diff != "" {
					t.Errorf("error (-want +got):\n%s", diff)
				}
				if took := time.Since(tt.app.began); took != tt.took {
					t.Errorf("took %s, want %s", took, tt.took)
				}
			})
		})
	}
}

// A closedHost is one on which nobody listens.
type closedHost struct{ plugins.Host }

func (h closedHost) DialContext(context.Context, string, string) (net.Conn, error) {
	return nil, &plugins.Error{Op: "dial", Host: h.String(), Kind: plugins.Unavailable, Err: errors.New("nobody listens")}
}

func ExampleWait() {
	attempt := 0
	s := health.Subject{
		Host:      plugintest.Local("web1"),
		Container: func(context.Context) (plugins.Container, error) { return running(7), nil },
		Exec: func(context.Context, []string) error {
			if attempt++; attempt < 2 {
				return errors.New("migrating")
			}
			return nil
		},
	}
	test := spec.Test{Interval: time.Millisecond, Checks: []spec.Check{{Exec: []string{"bin/selftest"}}}}
	err := health.Wait(context.Background(), s, test, func(line string) { fmt.Println(line) })
	fmt.Println(err)
	// Output:
	// exec bin/selftest: migrating
	// <nil>
}
