package proxy_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/teal-deploy/teal/orchestrator/proxy"
)

func TestPatienceSaysForHowLongNothingAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := proxy.Patience(t.Context(), 2*time.Second)
		defer cancel()
		broken := errors.New("read on a closed pipe")
		if err := proxy.CutShort(ctx, broken); !errors.Is(err, broken) {
			t.Errorf("while there is time: %v", err)
		}
		<-ctx.Done()
		err := proxy.CutShort(ctx, broken)
		if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, broken) || err.Error() != "no answer within 2s" {
			t.Errorf("got %v", err)
		}
	})
}

func TestCutShortKeepsTheCauseOfWhoeverEndedIt(t *testing.T) {
	why := errors.New("the operator said stop")
	outer, end := context.WithCancelCause(t.Context())
	ctx, cancel := proxy.Patience(outer, time.Minute)
	defer cancel()
	end(why)
	if err := proxy.CutShort(ctx, context.Canceled); !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
}
