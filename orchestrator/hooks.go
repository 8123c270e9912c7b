package orchestrator

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

// hookLimit bounds one hook.
const hookLimit = 10 * time.Minute

// hook runs the commands of a hook.
func (r *run) hook(ctx context.Context, name string, lines []string) error {
	return r.commands(ctx, "hooks."+name, lines, "TEAL_HOOK="+name)
}

// commands runs commands of the app file's setting name on the operator's
// machine, in the app file's folder, with what they need to know in TEAL_
// variables.
func (r *run) commands(ctx context.Context, setting string, lines []string, env ...string) error {
	name := setting[strings.LastIndex(setting, ".")+1:]
	for _, line := range lines {
		hctx, cancel := context.WithTimeout(ctx, hookLimit)
		out := &lineWriter{emit: func(text string) { r.emit(Event{Status: StatusOutput, Text: name + ": " + text}) }}
		cmd := exec.CommandContext(hctx, "sh", "-c", line)
		cmd.Dir = r.req.File.Dir()
		cmd.Env = slices.Concat(os.Environ(), r.hookEnv(), env)
		cmd.Stdout, cmd.Stderr = out, out
		// Its own group, so that Ctrl-C reaches teal alone, and all of it ends
		// with the context.
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
		cmd.WaitDelay = 5 * time.Second
		err := cmd.Run()
		cancel()
		out.flush()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return fmt.Errorf("%s: %q: %w", setting, line, err)
		}
	}
	return nil
}

func (r *run) hookEnv() []string {
	env := []string{
		"TEAL_COMMAND=" + r.command, "TEAL_RUN=" + r.id,
		"TEAL_APP=" + r.hosts[0].app.Name, "TEAL_BY=" + r.d.By,
	}
	if r.plan != nil {
		env = append(env, "TEAL_VERSION="+r.plan.Version, "TEAL_COMMIT="+r.plan.Commit, "TEAL_DIGEST="+r.plan.Digest)
	}
	return env
}
