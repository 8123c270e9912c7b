package proxy

import (
	"cmp"
	"context"
	"fmt"
	"time"
)

// Patience bounds how long the answer of a proxy is waited for. The cause of
// the context that ends so says for how long that was, and is
// context.DeadlineExceeded as well.
func Patience(ctx context.Context, within time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, within, silence(within))
}

// CutShort returns why ctx has ended, if it has, in place of err: what broke
// because of that says nothing of its own.
func CutShort(ctx context.Context, err error) error { return cmp.Or(context.Cause(ctx), err) }

// A silence is how long nothing answered.
type silence time.Duration

func (s silence) Error() string { return fmt.Sprintf("no answer within %s", time.Duration(s)) }

// Is makes it a deadline that was exceeded.
func (s silence) Is(target error) bool { return target == context.DeadlineExceeded }
