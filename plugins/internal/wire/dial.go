package wire

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/teal-deploy/teal/plugins/internal/duplex"
)

// closeGrace is how long a closed connection may take to deliver what was
// written before.
const closeGrace = 5 * time.Second

type (
	dialClient = grpc.BidiStreamingClient[DialInput, DialOutput]
	dialServer = grpc.BidiStreamingServer[DialInput, DialOutput]
)

// dial opens a connection through the peer. ctx bounds the opening alone. The
// error is a gRPC status when the hop failed.
func dial(ctx context.Context, client HostsServiceClient, open *DialOpen) (net.Conn, error) {
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, cancel)
	stream, err := openDial(life, client, open)
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		cancel()
		return nil, err
	}
	conn, carrier := duplex.New(duplex.Addr{Net: open.GetNetwork()}, duplex.Addr{Net: open.GetNetwork(), Address: open.GetAddress()})
	go sendData(life, stream, conn, carrier)
	go func() {
		defer cancel()
		carrier.CloseWithError(receiveData(stream, carrier))
	}()
	go func() {
		select {
		case <-life.Done():
			return
		case <-conn.Closed():
		}
		select {
		case <-life.Done():
		case <-time.After(closeGrace):
			cancel()
		}
	}()
	return conn, nil
}

func openDial(ctx context.Context, client HostsServiceClient, open *DialOpen) (dialClient, error) {
	stream, err := client.Dial(ctx)
	if err != nil {
		return nil, err
	}
	_ = stream.Send(&DialInput{Part: &DialInput_Open{open}}) // Recv has the reason when this fails
	out, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	if e := out.GetError(); e != nil {
		return nil, decodeError(e)
	}
	return stream, nil
}

// sendData sends what the user of conn writes, in order: data, the end of the
// data, the end of all.
func sendData(ctx context.Context, stream dialClient, conn *duplex.Conn, from io.Reader) {
	if copyChunks(from, func(p []byte) error {
		return stream.Send(&DialInput{Part: &DialInput_Data{p}})
	}) != nil {
		return
	}
	select {
	case <-conn.Closed():
	default:
		_ = stream.Send(&DialInput{Part: &DialInput_DataEnd{true}})
	}
	select {
	case <-conn.Closed():
		_ = stream.Send(&DialInput{Part: &DialInput_Close{true}})
		_ = stream.CloseSend()
	case <-ctx.Done():
	}
}

// receiveData returns when the stream has ended: nil when the peer ended it in
// order.
func receiveData(stream dialClient, to *duplex.Carrier) error {
	for {
		out, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return net.ErrClosed
		}
		switch part := out.GetPart().(type) {
		case *DialOutput_Data:
			_, _ = to.Write(part.Data) // after Close nobody wants it
		case *DialOutput_DataEnd:
			_ = to.CloseWrite()
		case *DialOutput_Error:
			return decodeError(part.Error)
		}
	}
}

// serveDial moves bytes between stream and conn until either is done. It
// closes conn.
func serveDial(ctx context.Context, stream dialServer, conn net.Conn) error {
	hangUp := sync.OnceFunc(func() { _ = conn.Close() })
	defer hangUp()
	defer context.AfterFunc(ctx, hangUp)()
	if err := stream.Send(&DialOutput{Part: &DialOutput_Opened{true}}); err != nil {
		return err
	}
	left := make(chan struct{}) // the peer has closed its end
	go func() {
		defer close(left)
		defer hangUp()
		forwardData(stream, conn)
	}()
	err := copyChunks(conn, func(p []byte) error {
		return stream.Send(&DialOutput{Part: &DialOutput_Data{p}})
	})
	select {
	case <-left:
		return nil
	default:
	}
	if err != nil {
		return stream.Send(&DialOutput{Part: &DialOutput_Error{encodeError(err)}})
	}
	if err := stream.Send(&DialOutput{Part: &DialOutput_DataEnd{true}}); err != nil {
		return err
	}
	select {
	case <-left:
	case <-ctx.Done():
	}
	return nil
}

// forwardData writes what comes from the peer to conn until the peer closes.
func forwardData(stream dialServer, conn net.Conn) {
	for {
		in, err := stream.Recv()
		if err != nil {
			return
		}
		switch part := in.GetPart().(type) {
		case *DialInput_Data:
			_, _ = conn.Write(part.Data) // a broken connection shows when it is read
		case *DialInput_DataEnd:
			if half, ok := conn.(interface{ CloseWrite() error }); ok {
				_ = half.CloseWrite()
			}
		case *DialInput_Close:
			return
		}
	}
}

// copyChunks reads r to its end, in pieces of at most chunkSize.
func copyChunks(r io.Reader, send func([]byte) error) error {
	buf := make([]byte, chunkSize)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if err := send(buf[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
