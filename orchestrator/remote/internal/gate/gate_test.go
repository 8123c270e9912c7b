package gate

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestEnterLetsFewInAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var gates Set
		inside := make(chan int64, 10)
		var open atomic.Int64
		for range 10 {
			go func() {
				leave, err := gates.Enter(t.Context(), "bastion", 3)
				if err != nil {
					t.Error(err)
					return
				}
				inside <- open.Add(1)
				time.Sleep(time.Second)
				open.Add(-1)
				leave()
			}()
		}
		began := time.Now()
		for range 10 {
			if n := <-inside; n > 3 {
				t.Errorf("%d inside", n)
			}
		}
		// Three, three, three, and one who begins after three seconds.
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("it took %s", took)
		}
		time.Sleep(time.Second)
	})
}

func TestEnterWaitsForOneNameOnlyAndEndsWithItsContext(t *testing.T) {
	var gates Set
	leave, err := gates.Enter(t.Context(), "a", 1)
	if err != nil {
		t.Fatal(err)
	}
	other, err := gates.Enter(t.Context(), "b", 1)
	if err != nil {
		t.Fatal(err)
	}
	other()
	stop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stop)
	if _, err := gates.Enter(ctx, "a", 1); !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
	leave()
	if _, err := gates.Enter(t.Context(), "a", 1); err != nil {
		t.Error(err)
	}
}
