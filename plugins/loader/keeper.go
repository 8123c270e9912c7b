package loader

import (
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
)

// keep ends the process groups that it has been told of and removes a folder,
// once nobody can tell it anything any more.
const keep = `groups=
while read -r what group; do
	others=
	for g in $groups; do [ "$g" = "$group" ] || others="$others $g"; done
	groups=$others
	[ "$what" = started ] && groups="$groups $group"
done
for g in $groups; do kill -KILL "-$g"; done
rm -rf -- "$1"`

// A keeper is a shell that outlives teal by a moment. When teal has died, by
// whatever signal, it ends what plugins have left and removes their folder. The
// kernel's promise of attributes covers the plugin alone, not what the plugin
// has started, and Linux alone.
type keeper struct {
	cmd *exec.Cmd

	mu   sync.Mutex
	pipe *os.File // its end is the keeper's sign; nil: it has been told
}

func newKeeper(dir string) (*keeper, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	k := &keeper{pipe: w, cmd: &exec.Cmd{
		Path: "/bin/sh", Args: []string{"sh", "-c", keep, "teal", dir}, Env: []string{"PATH=" + os.Getenv("PATH")},
		Dir: "/", Stdin: r,
		SysProcAttr: &syscall.SysProcAttr{Setsid: true}, // neither Ctrl-C nor the end of the terminal is for it
	}}
	if err := k.cmd.Start(); err != nil {
		_ = w.Close()
		return nil, err
	}
	return k, nil
}

// started makes a process group the keeper's until the function that it
// returns is called.
func (k *keeper) started(group int) (ended func()) {
	k.tell("started", group)
	return func() { k.tell("ended", group) }
}

func (k *keeper) tell(what string, group int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.pipe != nil {
		// One that was killed is missed only should teal be killed as well.
		_, _ = fmt.Fprintln(k.pipe, what, group)
	}
}

// close has the keeper clean up, and returns when that is done.
func (k *keeper) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.pipe == nil {
		return
	}
	_ = k.pipe.Close()
	k.pipe = nil
	_ = k.cmd.Wait() // what it could not do the caller finds out
}
