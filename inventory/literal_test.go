package inventory

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func plain(name, address string, ssh SSH) Host {
	return Host{Name: name, Address: address, Vars: map[string]string{}, SSH: ssh}
}

func TestLiteralListsAreInventories(t *testing.T) {
	tests := []struct {
		list string
		want []Host
	}{
		{"web1,", []Host{plain("web1", "web1", SSH{})}},
		{"web1,web2:2222,", []Host{plain("web1", "web1", SSH{}), plain("web2", "web2", SSH{Port: 2222})}},
		{" web1 , deploy@web2 ", []Host{plain("web1", "web1", SSH{}), plain("web2", "web2", SSH{User: "deploy"})}},
		{"web[1:2]:22", []Host{plain("web1", "web1", SSH{Port: 22}), plain("web2", "web2", SSH{Port: 22})}},
		{"[a:b]1", []Host{plain("a1", "a1", SSH{}), plain("b1", "b1", SSH{})}},
		{"2001:db8::1", []Host{plain("2001:db8::1", "2001:db8::1", SSH{})}},
		{"[2001:db8::1]", []Host{plain("2001:db8::1", "2001:db8::1", SSH{})}},
		{"a@b@web1", []Host{plain("web1", "web1", SSH{User: "a@b"})}},
		{"web1,web1", []Host{plain("web1", "web1", SSH{})}},
	}
	for _, test := range tests {
		inv, err := Literal(test.list)
		if err != nil {
			t.Errorf("%q: %v", test.list, err)
			continue
		}
		if diff := cmp.Diff(test.want, inv.Hosts()); diff != "" {
			t.Errorf("%q (-want +got):\n%s", test.list, diff)
		}
	}
}

func TestAdHocHostsTakeDefaults(t *testing.T) {
	defaults := SSH{User: "ops", Port: 2022, Identity: []string{"key"}, Become: "sudo", HostKeys: "accept-new"}
	inv, err := AdHoc([]string{"deploy@10.0.0.7:22", "root@[2001:db8::1]:2200", "10.0.0.8"}, defaults)
	if err != nil {
		t.Fatal(err)
	}
	with := func(user string, port uint16) SSH {
		s := defaults
		s.User, s.Port = user, port
		return s
	}
	want := []Host{
		plain("10.0.0.7", "10.0.0.7", with("deploy", 22)),
		plain("2001:db8::1", "2001:db8::1", with("root", 2200)),
		plain("10.0.0.8", "10.0.0.8", with("ops", 2022)),
	}
	if diff := cmp.Diff(want, inv.Hosts()); diff != "" {
		t.Errorf("hosts (-want +got):\n%s", diff)
	}
	one, err := inv.Select("2001:db8::1")
	if err != nil || len(one) != 1 {
		t.Errorf("%v, %v", one, err)
	}
}

func TestAdHocNamesTellHostsApart(t *testing.T) {
	tests := []struct {
		entries []string
		want    []string
	}{
		{[]string{"localhost:2201", "localhost:2202"}, []string{"localhost-2201", "localhost-2202"}},
		{[]string{"localhost", "localhost:2202"}, []string{"localhost", "localhost-2202"}},
		{[]string{"a@localhost", "b@localhost"}, []string{"a-localhost", "b-localhost"}},
		{[]string{"a@localhost:1", "b@localhost:1", "b@localhost:2"}, []string{"a-localhost-1", "b-localhost-1", "b-localhost-2"}},
		{[]string{"a@x", "a@x", "y"}, []string{"x", "y"}},
		{[]string{"[::1]:1", "[::1]:2"}, []string{"::1-1", "::1-2"}},
	}
	for _, test := range tests {
		inv, err := AdHoc(test.entries, SSH{})
		if err != nil {
			t.Errorf("%q: %v", test.entries, err)
			continue
		}
		if diff := cmp.Diff(test.want, names(inv.Hosts())); diff != "" {
			t.Errorf("%q (-want +got):\n%s", test.entries, diff)
		}
		for _, name := range test.want {
			if got, err := inv.Select(name); err != nil || len(got) != 1 {
				t.Errorf("%q selects %v, %v", name, names(got), err)
			}
		}
	}
}

func TestHostsOnTheCommandLineAreChecked(t *testing.T) {
	tests := []struct {
		entry, want string
	}{
		{"-oProxyCommand=x", `host "-oProxyCommand=x": "-oProxyCommand=x" is not a host name or an address`},
		{"web;reboot", `host "web;reboot": "web;reboot" is not a host name or an address`},
		{"web 1", `host "web 1": "web 1" is not a host name or an address`},
		{"web\n1", `host "web\n1": "web\n1" is not a host name or an address`},
		{"$(reboot)", `host "$(reboot)": "$(reboot)" is not a host name or an address`},
		{"-l@web", `host "-l@web": "-l" is not a user name`},
		{"@web", `host "@web": "" is not a user name`},
		{"a b@web", `host "a b@web": "a b" is not a user name`},
		{"web:", `host "web:": "" is not a port between 1 and 65535`},
		{"web:0", `host "web:0": "0" is not a port between 1 and 65535`},
		{"web:65536", `host "web:65536": "65536" is not a port between 1 and 65535`},
		{"web:ssh", `host "web:ssh": "ssh" is not a port between 1 and 65535`},
		{"web:22:22", `host "web:22:22": "web:22" is not a host name or an address`},
		{"web[2:1]", `host "web[2:1]": [2:1] is not a range: the first is above the last`},
		{"fe80::1%;x", `host "fe80::1%;x": "1%;x" is not a port between 1 and 65535`},
	}
	for _, test := range tests {
		inv, err := AdHoc([]string{test.entry}, SSH{})
		if err == nil {
			t.Errorf("%q: %v", test.entry, inv.Hosts())
			continue
		}
		if diff := cmp.Diff(test.want, err.Error()); diff != "" {
			t.Errorf("%q (-want +got):\n%s", test.entry, diff)
		}
	}
	for _, list := range []string{"", ",", " , ", "[::1", "web[1:2", "web]", "[]", "[::1]x"} {
		if _, err := Literal(list); err == nil {
			t.Errorf("%q is an inventory", list)
		}
	}
	if _, err := AdHoc([]string{"w[1:90000]", "x[1:90000]"}, SSH{}); err == nil {
		t.Error("there is no limit")
	}
}
