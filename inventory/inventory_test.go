package inventory

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func parse(t *testing.T, src string) *Inventory {
	t.Helper()
	inv, err := Parse("inventory.toml", []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

func names(hosts []Host) []string {
	var out []string
	for _, h := range hosts {
		out = append(out, h.Name)
	}
	return out
}

func TestLoadMergesWhatIsSaidAboutAHost(t *testing.T) {
	path := filepath.Join(t.TempDir(), "inventory.toml")
	src := `[ssh]
user = "deploy"
port = 22
identity = ["~/.ssh/id_ed25519"]
jump = "ops@bastion.example.com"
become = "sudo"
known_hosts = ["~/.ssh/known_hosts"]

[vars]
region = "eu"

[groups.web]
hosts = ["web[01:02].example.com"]
vars = { RAILS_MAX_THREADS = "5" }

[groups.lb]
hosts = ["lb1", "lb2"]
ssh = { user = "root" }

[groups.production]
children = ["web", "lb"]

[hosts.lb1]
address = "10.0.0.5"
vars = { weight = 2 }
ssh = { jump = "none", become = "", identity = [], host_keys = "accept-new", port = 2222 }
`
	if err := os.WriteFile(path, []byte(src), 0o600); err != nil {
		t.Fatal(err)
	}
	inv, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	ssh := SSH{
		User: "deploy", Port: 22, Identity: []string{"~/.ssh/id_ed25519"}, Jump: "ops@bastion.example.com",
		Become: "sudo", KnownHosts: []string{"~/.ssh/known_hosts"},
	}
	root := ssh
	root.User = "root"
	web := func(name string) Host {
		return Host{
			Name: name, Address: name, Groups: []string{"production", "web"},
			Vars: map[string]string{"region": "eu", "RAILS_MAX_THREADS": "5"}, SSH: ssh,
		}
	}
	want := []Host{
		web("web01.example.com"),
		web("web02.example.com"),
		{
			Name: "lb1", Address: "10.0.0.5", Groups: []string{"lb", "production"},
			Vars: map[string]string{"region": "eu", "weight": "2"},
			SSH:  SSH{User: "root", Port: 2222, Identity: []string{}, Jump: "none", KnownHosts: []string{"~/.ssh/known_hosts"}, HostKeys: "accept-new"},
		},
		{Name: "lb2", Address: "lb2", Groups: []string{"lb", "production"}, Vars: map[string]string{"region": "eu"}, SSH: root},
	}
	if diff := cmp.Diff(want, inv.Hosts()); diff != "" {
		t.Errorf("hosts (-want +got):\n%s", diff)
	}
	groups := []Group{
		{Name: "web", Hosts: []string{"web01.example.com", "web02.example.com"}},
		{Name: "lb", Hosts: []string{"lb1", "lb2"}},
		{Name: "production", Hosts: []string{"web01.example.com", "web02.example.com", "lb1", "lb2"}, Children: []string{"web", "lb"}},
	}
	if diff := cmp.Diff(groups, inv.Groups()); diff != "" {
		t.Errorf("groups (-want +got):\n%s", diff)
	}
}

func TestLoadNamesTheMissingFile(t *testing.T) {
	_, err := Load(filepath.Join(t.TempDir(), "hosts.toml"))
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "hosts.toml") {
		t.Errorf("got %v", err)
	}
}

func TestTheNearerLayerWins(t *testing.T) {
	const groups = `
[groups.top]
children = ["middle"]
vars = { v = "top" }
ssh = { user = "top" }
[groups.middle]
children = ["leaf"]
vars = { v = "middle" }
ssh = { user = "middle" }
[groups.leaf]
hosts = ["a"]
vars = { v = "leaf" }
ssh = { user = "leaf" }
`
	tests := []struct {
		name, src, want string
	}{
		{"nothing but the top", "[vars]\nv = \"all\"\n[ssh]\nuser = \"all\"\n[groups.g]\nhosts = [\"a\"]", "all"},
		{"group over top", "[vars]\nv = \"all\"\n[ssh]\nuser = \"all\"\n[groups.g]\nhosts = [\"a\"]\nvars.v = \"g\"\nssh.user = \"g\"", "g"},
		{"child over parent", "[vars]\nv = \"all\"\n[ssh]\nuser = \"all\"\n" + groups, "leaf"},
		{"host over group", groups + "[hosts.a]\nvars.v = \"host\"\nssh.user = \"host\"", "host"},
		{
			"the later name at the same depth",
			"[groups.b]\nhosts=[\"a\"]\nvars.v = \"b\"\nssh.user=\"b\"\n[groups.c]\nhosts=[\"a\"]\nvars.v = \"c\"\nssh.user=\"c\"\n" +
				"[groups.a2]\nhosts=[\"a\"]\nvars.v = \"a2\"\nssh.user=\"a2\"", "c",
		},
		{
			"the deeper one, though its name is earlier",
			"[groups.z]\nhosts=[\"a\"]\nvars.v = \"z\"\nssh.user=\"z\"\n" +
				"[groups.p]\nchildren = [\"b\"]\n[groups.b]\nhosts=[\"a\"]\nvars.v = \"b\"\nssh.user=\"b\"", "b",
		},
		{
			"the longest way counts",
			"[groups.p]\nchildren=[\"q\", \"z\"]\n[groups.q]\nchildren=[\"b\"]\n[groups.b]\nhosts=[\"a\"]\nvars.v=\"b\"\nssh.user=\"b\"\n" +
				"[groups.z]\nhosts=[\"a\"]\nvars.v=\"z\"\nssh.user=\"z\"", "b",
		},
		{
			"the host though it stands first",
			"[hosts.a]\nvars.v = \"host\"\nssh.user = \"host\"\n" + groups, "host",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			h := parse(t, test.src).Hosts()[0]
			if h.Vars["v"] != test.want || h.SSH.User != test.want {
				t.Errorf("got v = %q, user = %q, want %q", h.Vars["v"], h.SSH.User, test.want)
			}
		})
	}
}

func TestVariablesAreText(t *testing.T) {
	h := parse(t, `[groups.g]
hosts = ["a"]
vars = { big = 1_000_000, hex = 0x1F, php = 3.10, exp = 1e3, yes = true, no = false, empty = "", neg = -1 }
[hosts.a.vars]
odd = "quotes ' \" $(id) `+"`id`"+` ; newline\nand ${x} and \\"
multi = """
a
b"""
`).Hosts()[0]
	want := map[string]string{
		"big": "1000000", "hex": "31", "php": "3.10", "exp": "1e3", "yes": "true", "no": "false", "empty": "", "neg": "-1",
		"odd": "quotes ' \" $(id) `id` ; newline\nand ${x} and \\", "multi": "a\nb",
	}
	if diff := cmp.Diff(want, h.Vars); diff != "" {
		t.Errorf("vars (-want +got):\n%s", diff)
	}
}

func TestHostsKeepTheOrderOfTheFile(t *testing.T) {
	inv := parse(t, `[groups.z]
hosts = ["z2", "z1"]
[groups.a]
hosts = ["a1", "z1", "a1"]
[hosts.m]
[hosts.z2]
[hosts."2001:db8::1"]
`)
	if diff := cmp.Diff([]string{"z2", "z1", "a1", "m", "2001:db8::1"}, names(inv.Hosts())); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	first := parse(t, "[hosts.m]\n[groups.z]\nhosts = [\"z1\", \"m\"]\n")
	if diff := cmp.Diff([]string{"m", "z1"}, names(first.Hosts())); diff != "" {
		t.Errorf("order with hosts first (-want +got):\n%s", diff)
	}
}

func TestHostsCannotBeChangedFromOutside(t *testing.T) {
	inv := parse(t, "[groups.g]\nhosts = [\"a\"]\nvars.v = \"1\"\nssh.identity = [\"x\"]\nchildren = []")
	h := inv.Hosts()[0]
	h.Vars["v"], h.Groups[0], h.SSH.Identity[0] = "2", "other", "y"
	inv.Groups()[0].Hosts[0] = "b"
	again := inv.Hosts()[0]
	if again.Vars["v"] != "1" || again.Groups[0] != "g" || again.SSH.Identity[0] != "x" || inv.Groups()[0].Hosts[0] != "a" {
		t.Errorf("the inventory changed: %+v", again)
	}
}

func TestAnEmptyFileIsAnEmptyInventory(t *testing.T) {
	inv := parse(t, "")
	if len(inv.Hosts()) != 0 || len(inv.Groups()) != 0 {
		t.Errorf("got %v", inv)
	}
	if _, err := inv.Select("all"); err == nil {
		t.Error("all of nothing is no error")
	}
}

func TestALargeInventoryIsReadQuickly(t *testing.T) {
	inv := parse(t, `[groups.web]
hosts = ["web[00001:10000].example.com"]
vars = { a = "1" }
[groups.all-of-it]
children = ["web"]
`)
	hosts, err := inv.Select("web[0:4999]:!web0000*")
	if err != nil || len(hosts) != 5000-9 {
		t.Errorf("%d hosts, %v", len(hosts), err)
	}
}

func TestAnInventoryHasALimit(t *testing.T) {
	var b strings.Builder
	b.WriteString("[groups.web]\nhosts = [\n")
	for i := range 4 {
		fmt.Fprintf(&b, "  \"web%d-[1:90000]\",\n", i)
	}
	b.WriteString("]\n")
	_, err := Parse("inventory.toml", []byte(b.String()))
	if err == nil || !strings.Contains(err.Error(), "more than 100000 hosts") {
		t.Errorf("got %v", err)
	}
}
