package orchestrator

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/orchestrator/record"
)

func TestPendingTextSaysWhatIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		switched := time.Now()
		at := func(after time.Duration) string { return switched.Add(after).Format(time.TimeOnly) }
		late := "at the latest at " + at(time.Hour)
		for _, tt := range []struct {
			after       time.Duration
			connections int
			want        string
		}{
			{5 * time.Second, 3, "r1 leaves blue from " + at(10*time.Second) + " on"},
			{15 * time.Second, 0, "r1 leaves blue from " + at(10*time.Second) + " on"},
			{15 * time.Second, 1, "r1 leaves blue when its connection ends, " + late},
			{15 * time.Second, 3, "r1 leaves blue when its 3 connections end, " + late},
			{15 * time.Second, -1, "r1 leaves blue when its connections end, " + late},
		} {
			time.Sleep(time.Until(switched.Add(tt.after)))
			got := pendingText([]record.Pending{{
				Teardown:    record.Teardown{Release: "r1", Slot: proxy.Blue, Delay: 10 * time.Second, Max: time.Hour},
				Connections: tt.connections, Switched: switched,
			}})
			if got != tt.want {
				t.Errorf("after %s with %d connections: got %q, want %q", tt.after, tt.connections, got, tt.want)
			}
		}
	})
}
