package record

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/teal-deploy/teal/plugins"
)

func TestAcquireSaysWhoHoldsTheLock(t *testing.T) {
	onShells(t, func(t *testing.T, f *fixture) {
		l := f.acquire()
		_, err := f.store.Acquire(t.Context(), f.host, f.app, owner("r2"))
		var held *HeldError
		if !errors.As(err, &held) || !errors.Is(err, plugins.Conflict) {
			t.Fatalf("got %v, want a HeldError", err)
		}
		if diff := cmp.Diff(&HeldError{Host: "web1", App: "shop", Owner: owner("r1")}, held); diff != "" {
			t.Error(diff)
		}
		want := "web1: lock of shop: held by ann@desk (process 42 there) since 2026-01-02T03:04:05Z for deploy r1"
		if err.Error() != want {
			t.Errorf("error %q, want %q", err, want)
		}
		if holder := f.observe().Holder; holder == nil || *holder != owner("r1") {
			t.Errorf("holder %+v, want the one of the run", holder)
		}
		f.must(l.Release(t.Context()))
		if holder := f.observe().Holder; holder != nil {
			t.Errorf("the lock is free, yet %+v holds it", holder)
		}
	})
}

func TestAcquireRaisesTheEpoch(t *testing.T) {
	onShells(t, func(t *testing.T, f *fixture) {
		for want := int64(1); want <= 3; want++ {
			l := f.acquire()
			if l.Epoch() != want {
				t.Errorf("epoch %d, want %d", l.Epoch(), want)
			}
			f.must(l.Release(t.Context()))
			f.must(l.Release(t.Context()))
			if got := f.observe().Epoch; got != want {
				t.Errorf("observed epoch %d, want %d", got, want)
			}
		}
	})
}

func TestOneOfManyGetsTheLock(t *testing.T) {
	onShells(t, func(t *testing.T, f *fixture) {
		var mu sync.Mutex
		var won int
		var all sync.WaitGroup
		for range 6 {
			all.Go(func() {
				l, err := f.store.Acquire(t.Context(), f.host, f.app, owner("r"))
				var held *HeldError
				switch {
				case err == nil:
					mu.Lock()
					won++
					mu.Unlock()
					time.Sleep(2 * time.Second)
					_ = l.Release(context.Background())
				case !errors.As(err, &held):
					t.Error(err)
				}
			})
		}
		all.Wait()
		if won != 1 {
			t.Errorf("%d have got the lock, want 1", won)
		}
		f.acquire()
	})
}

// A look at a lock must not look like a holder.
func TestObserveDoesNotKeepAnybodyFromTheLock(t *testing.T) {
	t.Parallel()
	f := newFixture(t, shell{name: "dash"})
	f.must(f.acquire().Release(t.Context()))
	var looks sync.WaitGroup
	end := make(chan struct{})
	for range 2 {
		looks.Go(func() {
			for {
				select {
				case <-end:
					return
				default:
					f.observe()
				}
			}
		})
	}
	for range 10 {
		f.must(f.acquire().Release(t.Context()))
	}
	close(end)
	looks.Wait()
}

func TestLockIsFreeWhenItsControllerIsKilled(t *testing.T) {
	t.Parallel()
	f := newFixture(t, shell{name: "dash"})
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "RECORD_TEST_HOLD="+f.store.Root)
	out, err := cmd.StdoutPipe()
	f.must(err)
	f.must(cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "acquired <nil>\n" {
		t.Fatal(line, err)
	}
	if f.observe().Holder == nil {
		t.Fatal("the lock is free")
	}
	f.must(cmd.Process.Kill())
	killed := time.Now()
	_ = cmd.Wait()
	for f.observe().Holder != nil {
		if time.Since(killed) > time.Second {
			t.Fatal("held a second after its controller was killed")
		}
	}
	f.acquire()
}

func TestLockIsFreeWhenItsHolderIsKilled(t *testing.T) {
	onShells(t, func(t *testing.T, f *fixture) {
		l := f.acquire()
		f.kill(f.store.Dir(f.app))
		select {
		case <-l.Lost():
		case <-time.After(5 * time.Second):
			t.Fatal("the loss was not noticed")
		}
		f.is(l.Err(), ErrLost)
		f.is(l.Release(t.Context()), ErrLost)
		if f.observe().Holder != nil {
			t.Error("a dead process holds the lock")
		}
		f.acquire()
	})
}

// On a cut cable the host hears nothing: it ends the connection, and the
// controller has given up before.
func TestSilenceFencesTheController(t *testing.T) {
	onShells(t, func(t *testing.T, f *fixture) {
		f.store.Silence = 3 * time.Second
		f.host.deaf = true
		l := f.acquire()
		time.Sleep(time.Second)
		f.must(l.Err())
		close(f.host.muted)
		cut := time.Now()
		<-l.Lost()
		gaveUp := time.Since(cut)
		<-f.host.closed
		f.is(l.Err(), ErrLost)
		f.is(l.Err(), plugins.Lost)
		f.is(l.Write(t.Context(), State{}), ErrLost)

		other := newHost(t, f.host.shell)
		for {
			o, err := f.store.Observe(t.Context(), other, f.app)
			f.must(err)
			if o.Holder == nil {
				break
			}
		}
		free := time.Since(cut)
		if gaveUp < time.Second || gaveUp > free || free > 8*time.Second {
			t.Errorf("controller gave up after %s, host after %s; want the first before the second, in 5 s or little more", gaveUp, free)
		}
		f.eventually("the connection is ended", func() bool {
			var exit *plugins.ExitError
			return errors.As(f.host.lastFailure(), &exit) && exit.Code == 143
		})
	})
}

func TestReleaseLeavesTheConnectionUsable(t *testing.T) {
	t.Parallel()
	f := newFixture(t, shell{name: "dash"})
	l := f.acquire()
	f.must(l.Release(t.Context()))
	f.is(l.Write(t.Context(), State{}), ErrReleased)
	if err := f.host.lastFailure(); err != nil {
		t.Errorf("the holder did not end by itself: %v", err)
	}
	select {
	case <-l.Lost():
		t.Error("released, and said to be lost")
	case <-f.host.closed:
		t.Error("the connection was closed")
	default:
	}
}

func TestFormerHolderIsFenced(t *testing.T) {
	onShells(t, func(t *testing.T, f *fixture) {
		l := f.acquire()
		f.must(l.Write(t.Context(), State{Ports: Ports{Stable: 1}}))
		f.must(l.Arm(t.Context(), f.teardown(newContainer(t), time.Minute, time.Hour)))
		write(t, filepath.Join(f.store.Dir(f.app), "epoch"), "2\n") // as if another had taken it
		before := f.files()
		for name, err := range map[string]error{
			"Write":  l.Write(t.Context(), State{Ports: Ports{Stable: 2}}),
			"Append": l.Append(t.Context(), Entry{}),
			"Audit":  l.Audit(t.Context(), "text"),
			"Arm":    l.Arm(t.Context(), f.teardown(newContainer(t), 0, 0)),
			"Let":    l.Let(t.Context(), release),
			"Cancel": l.Cancel(t.Context(), release),
		} {
			if !errors.Is(err, ErrFenced) {
				t.Errorf("%s: %v, want ErrFenced", name, err)
			}
		}
		if diff := cmp.Diff(before, f.files()); diff != "" {
			t.Errorf("changed: %s", diff)
		}
	})
}

// files returns the names of all files in the app's folder but those that the
// teardown process writes for observers.
func (f *fixture) files() []string {
	f.Helper()
	var names []string
	f.must(filepath.WalkDir(f.store.Dir(f.app), func(path string, _ os.DirEntry, err error) error {
		switch filepath.Base(path) {
		case "count", "waits", "switched", ".count", ".waits", ".switched":
		default:
			names = append(names, strings.TrimPrefix(path, f.store.Root))
		}
		return err
	}))
	return names
}

func TestAcquireGivesUpWithItsContext(t *testing.T) {
	t.Parallel()
	f := newFixture(t, shell{name: "dash"})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := f.store.Acquire(ctx, f.host, f.app, owner("r1"))
	f.is(err, context.Canceled)
	f.eventually("the lock is free", func() bool { return f.observe().Holder == nil })
	f.acquire()
}

func TestLockOutlivesTheContextOfAcquire(t *testing.T) {
	t.Parallel()
	f := newFixture(t, shell{name: "dash"})
	ctx, cancel := context.WithCancel(t.Context())
	l, err := f.store.Acquire(ctx, f.host, f.app, owner("r1"))
	f.must(err)
	cancel()
	time.Sleep(200 * time.Millisecond)
	f.must(l.Write(t.Context(), State{}))
	f.must(l.Release(t.Context()))
}

func TestAcquireRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		app   string
		store func(Store) Store
		kind  plugins.Kind
		text  string
	}{
		{name: "no app", app: "", kind: plugins.Invalid, text: "cannot be the name of a folder"},
		{name: "a path", app: "../etc", kind: plugins.Invalid, text: "cannot be the name of a folder"},
		{name: "a hidden folder", app: ".x", kind: plugins.Invalid, text: "cannot be the name of a folder"},
		{
			name: "half a second", app: "shop", kind: plugins.Invalid, text: "whole number of seconds",
			store: func(s Store) Store { s.Silence = 500 * time.Millisecond; return s },
		},
		{
			name: "a folder that cannot be", app: "shop", kind: plugins.Denied, text: "grant it: sudo install -d -o ",
			store: func(s Store) Store { s.Root = "/dev/null/teal"; return s },
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, shell{name: "dash"})
			s := f.store
			if tt.store != nil {
				s = tt.store(s)
			}
			_, err := s.Acquire(t.Context(), f.host, tt.app, owner("r1"))
			if !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v, want kind %s and %q", err, tt.kind, tt.text)
			}
		})
	}
}

func TestAcquireSaysWhatTheHostLacksOrWhatIsDamaged(t *testing.T) {
	t.Parallel()
	f := newFixture(t, shell{"few programs", withoutFlock(t)})
	f.must(f.acquire().Release(t.Context()))
	write(t, filepath.Join(f.store.Dir(f.app), "epoch"), "many\n")
	_, err := f.store.Acquire(t.Context(), f.host, f.app, owner("r1"))
	f.is(err, plugins.Invalid)
	f.must(os.Remove(filepath.Join(f.host.shell.path, "timeout")))
	_, err = f.store.Acquire(t.Context(), f.host, f.app, owner("r1"))
	f.is(err, plugins.Unsupported)
	if !strings.Contains(err.Error(), `no program "timeout"`) {
		t.Errorf("%v does not name the program", err)
	}
}

// asNobody makes the login user one without rights.
func asNobody(t *testing.T, f *fixture) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can be somebody else")
	}
	f.host.login = []string{need(t, "setpriv"), "--reuid=65534", "--regid=65534", "--clear-groups"}
	for dir := filepath.Dir(f.store.Root); dir != os.TempDir(); dir = filepath.Dir(dir) {
		f.must(os.Chmod(dir, 0o755))
	}
}

func TestAcquireMakesTheFolderWithBecome(t *testing.T) {
	t.Parallel()
	f := newFixture(t, shell{name: "dash"})
	asNobody(t, f)
	if f.observe().Facts.Writable {
		t.Error("writable without rights")
	}
	_, err := f.store.Acquire(t.Context(), f.host, f.app, owner("r1"))
	f.is(err, plugins.Denied)
	if want := "sudo install -d -o nobody -m 755 " + f.store.Root; !strings.Contains(err.Error(), want) {
		t.Errorf("error %q does not contain %q", err, want)
	}
	f.host.become = true
	if !f.observe().Facts.Writable {
		t.Error("not writable, though become leads to root")
	}
	l := f.acquire()
	f.must(l.Write(t.Context(), State{}))
	f.must(l.Release(t.Context()))
	if !f.observe().Facts.Writable {
		t.Error("not writable after it was made")
	}
}

func TestAcquireLeavesAnotherUsersFolder(t *testing.T) {
	t.Parallel()
	f := newFixture(t, shell{name: "dash"})
	f.must(f.acquire().Release(t.Context())) // root's
	asNobody(t, f)
	f.host.become = true
	_, err := f.store.Acquire(t.Context(), f.host, f.app, owner("r1"))
	f.is(err, plugins.Denied)
	if !strings.Contains(err.Error(), "sudo chown -R nobody "+f.store.Dir(f.app)) {
		t.Errorf("%v does not say how to get it", err)
	}
}
