package wire

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/teal-deploy/teal/plugins"
)

// chunkSize is the largest piece of a byte stream in one message.
const chunkSize = 64 << 10

// The two halves of a command, used in both directions: Host.Run from the
// plugin to teal, Runtime.Exec from teal to the plugin.
type (
	commandClient = grpc.BidiStreamingClient[CommandInput, CommandOutput]
	commandServer = grpc.BidiStreamingServer[CommandInput, CommandOutput]
)

func commandStart(call *Call, id string, cmd *plugins.Command) *CommandStart {
	return &CommandStart{
		Call:   call,
		Id:     id,
		Args:   cmd.Args,
		Env:    cmd.Env,
		Become: cmd.Become,
		Stdin:  cmd.Stdin != nil,
		Stdout: cmd.Stdout != nil,
		Stderr: cmd.Stderr != nil,
	}
}

// runCommand has the peer run a command and moves its streams until it ends.
// When one of the caller's own streams fails, abort must cancel the command,
// which is then waited for. The reader of standard input is not waited for:
// like a terminal it may have nothing to say for ever. The error is a gRPC
// status when the hop failed.
func runCommand(ctx context.Context, abort context.CancelCauseFunc,
	open func(context.Context) (commandClient, error), start *CommandStart, cmd *plugins.Command,
) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := open(ctx)
	if err != nil {
		return err
	}
	// A failed Send says no more than io.EOF; Recv has the reason.
	if err := stream.Send(&CommandInput{Part: &CommandInput_Start{start}}); err == nil && cmd.Stdin != nil {
		go sendStdin(stream, cmd.Stdin, abort)
	}
	var failed error
	for {
		out, err := stream.Recv()
		if err != nil {
			return cmp.Or(failed, unexpectedEnd(err))
		}
		switch part := out.GetPart().(type) {
		case *CommandOutput_Stdout:
			err = write(cmd.Stdout, part.Stdout)
		case *CommandOutput_Stderr:
			err = write(cmd.Stderr, part.Stderr)
		case *CommandOutput_End:
			return cmp.Or(failed, decodeError(part.End.GetError()))
		}
		if err != nil && failed == nil {
			failed = fmt.Errorf("write output: %w", err)
			abort(failed)
		}
	}
}

// unexpectedEnd makes an end of the stream that the peer should have announced
// an error of the hop.
func unexpectedEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return status.Error(codes.Internal, "the answer broke off")
	}
	return err
}

// sendStdin aborts when r fails: the command must not take half of its input
// for all of it.
func sendStdin(stream commandClient, r io.Reader, abort context.CancelCauseFunc) {
	err := copyChunks(r, func(p []byte) error {
		if stream.Send(&CommandInput{Part: &CommandInput_Stdin{p}}) != nil {
			return errStreamEnded
		}
		return nil
	})
	switch {
	case err == nil:
		_ = stream.Send(&CommandInput{Part: &CommandInput_StdinEnd{true}})
	case !errors.Is(err, errStreamEnded):
		abort(fmt.Errorf("read standard input: %w", err))
	}
}

// errStreamEnded says that the peer wants no more.
var errStreamEnded = errors.New("the stream has ended")

func write(w io.Writer, p []byte) error {
	if w == nil {
		return nil
	}
	_, err := w.Write(p)
	return err
}

// serveCommand runs what the peer asked for with run.
func serveCommand(stream commandServer, start *CommandStart, run func(*plugins.Command) error) error {
	cmd := &plugins.Command{Args: start.GetArgs(), Env: start.GetEnv(), Become: start.GetBecome()}
	var mu sync.Mutex // Send is for one goroutine at a time
	if start.GetStdout() {
		cmd.Stdout = chunkWriter(func(p []byte) error {
			mu.Lock()
			defer mu.Unlock()
			return stream.Send(&CommandOutput{Part: &CommandOutput_Stdout{p}})
		})
	}
	if start.GetStderr() {
		cmd.Stderr = chunkWriter(func(p []byte) error {
			mu.Lock()
			defer mu.Unlock()
			return stream.Send(&CommandOutput{Part: &CommandOutput_Stderr{p}})
		})
	}
	if start.GetStdin() {
		r, w := io.Pipe()
		cmd.Stdin = r
		defer func() { _ = r.Close() }()
		go receiveStdin(stream, w)
	}
	err := run(cmd)
	mu.Lock()
	defer mu.Unlock()
	return stream.Send(&CommandOutput{Part: &CommandOutput_End{&Done{Error: encodeError(err)}}})
}

// receiveStdin hands on what comes until the stream ends. When the command
// has stopped reading it goes on receiving, so that the sender is not stuck.
func receiveStdin(stream commandServer, w *io.PipeWriter) {
	for {
		in, err := stream.Recv()
		if err != nil {
			_ = w.CloseWithError(io.ErrUnexpectedEOF)
			return
		}
		switch part := in.GetPart().(type) {
		case *CommandInput_Stdin:
			_, _ = w.Write(part.Stdin)
		case *CommandInput_StdinEnd:
			_ = w.Close()
		}
	}
}

// A chunkWriter sends what is written in pieces of at most chunkSize.
type chunkWriter func([]byte) error

func (send chunkWriter) Write(p []byte) (int, error) {
	for n := 0; n < len(p); n += chunkSize {
		if err := send(p[n:min(n+chunkSize, len(p))]); err != nil {
			return n, err
		}
	}
	return len(p), nil
}
