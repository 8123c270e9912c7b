package ports_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/orchestrator/proxy/internal/ports"
)

func TestOccupiedPorts(t *testing.T) {
	t.Parallel()
	l := proxy.Layout{Members: []proxy.Member{{Stable: netip.MustParseAddrPort("127.0.0.1:20000")}}}
	l.Site = &proxy.Site{Listen: []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:80")}}
	line := func(addr, state, inode string) string {
		return fmt.Sprintf("  0: %s 00000000:0000 %s 00000000:00000000 00:00000000 00000000     0        0 %s 1 0\n", addr, state, inode)
	}
	for name, c := range map[string]struct {
		tcp  string
		want string // part of the error; empty: none
	}{
		"nothing":                        {"", ""},
		"our own":                        {line("0100007F:4E20", "0A", "77"), ""},
		"another's":                      {line("0100007F:4E20", "0A", "5"), "another program listens on 127.0.0.1:20000"},
		"another's on all":               {line("00000000:4E20", "0A", "5"), "another program listens on 0.0.0.0:20000"},
		"another's on all, IPv6":         {line("00000000000000000000000000000000:4E20", "0A", "5"), "another program listens on [::]:20000"},
		"another's on another address":   {line("0200000A:4E20", "0A", "5"), ""},
		"another's on one of all":        {line("0200000A:0050", "0A", "5"), "another program listens on 10.0.0.2:80"},
		"an outgoing connection":         {line("0100007F:4E20", "01", "5"), "an outgoing connection holds 127.0.0.1:20000"},
		"an accepted connection":         {line("0100007F:4E20", "0A", "77") + line("0100007F:4E20", "01", "5"), ""},
		"one that waits for its end":     {line("0100007F:4E20", "06", "0"), ""},
		"another's on mapped":            {line("0000000000000000FFFF00000100007F:4E20", "0A", "5"), "another program"},
		"not a line":                     {"  sl  local_address\n", ""},
		"another's on the IPv6 loopback": {line("00000000000000000000000001000000:4E20", "0A", "5"), ""},
	} {
		taken := ports.Taken{Own: []string{"77"}, Sockets: ports.Parse(c.tcp)}
		err := taken.Occupied("nginx", l)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
