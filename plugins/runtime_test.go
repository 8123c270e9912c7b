package plugins_test

import (
	"testing"

	"github.com/teal-deploy/teal/plugins"
)

func TestContainerHasLabels(t *testing.T) {
	c := plugins.Container{Labels: map[string]string{"app": "shop", "empty": ""}}
	for _, tt := range []struct {
		labels map[string]string
		want   bool
	}{
		{nil, true},
		{map[string]string{"app": "shop"}, true},
		{map[string]string{"app": "shop", "empty": ""}, true},
		{map[string]string{"app": "blog"}, false},
		{map[string]string{"app": "shop", "other": ""}, false},
	} {
		if got := c.HasLabels(tt.labels); got != tt.want {
			t.Errorf("%v: %v", tt.labels, got)
		}
	}
}
