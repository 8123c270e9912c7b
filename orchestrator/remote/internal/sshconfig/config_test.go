package sshconfig

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/teal-deploy/teal/inventory"
	"github.com/teal-deploy/teal/orchestrator/remote/internal/gate"
	"github.com/teal-deploy/teal/plugins"
)

// withoutSSH hides the ssh program.
func withoutSSH(t *testing.T) { t.Setenv("PATH", t.TempDir()) }

func resolve(t *testing.T, d *Reader, h inventory.Host) *Settings {
	t.Helper()
	s, err := d.Resolve(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const config = `
Include %s/more
Host web*
  HostName %%h.example.com
  User deploy
  Port 2222
  IdentityFile %%d/keys/%%r@%%h:%%p
  IdentitiesOnly yes
  ProxyJump ops@bastion:2200,inner
  ConnectTimeout 7
  HostKeyAlias fleet
  StrictHostKeyChecking accept-new
Host direct
  ProxyCommand connect --user %%r %%n %%h %%p 100%%%%
  UserKnownHostsFile ~/known ~/known2
  GlobalKnownHostsFile none
  IdentityAgent none
`

func TestSettingsOfSSHConfig(t *testing.T) {
	t.Setenv("SSH_AUTH_SOCK", "/agent.sock")
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	home, folder := me.HomeDir, t.TempDir()
	t.Setenv("HOME", home) // ssh looks nowhere but in the list of users
	file := filepath.Join(folder, "config")
	write := func(file, text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(file, strings.ReplaceAll(strings.ReplaceAll(config, "%s", folder), "%%", "%"))
	write(filepath.Join(folder, "more"), "Host web9\n  IdentityFile ~/${TEAL_TEST_KEY}\n")
	t.Setenv("TEAL_TEST_KEY", "special")

	defaults := &Settings{
		Alias: "other", Host: "other", Port: "22", User: me.Username, Timeout: 15 * time.Second, AgentSocket: "/agent.sock",
		Identities: []string{home + "/.ssh/id_rsa", home + "/.ssh/id_ecdsa", home + "/.ssh/id_ecdsa_sk", home + "/.ssh/id_ed25519", home + "/.ssh/id_ed25519_sk"},
		KnownHosts: []string{home + "/.ssh/known_hosts", home + "/.ssh/known_hosts2", "/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"},
	}
	web := *defaults
	web.Alias, web.Host, web.Port, web.User = "web1", "web1.example.com", "2222", "deploy"
	web.Identities, web.IdentitiesOnly = []string{home + "/keys/deploy@web1.example.com:2222"}, true
	web.Timeout, web.KeyAlias, web.AcceptNew = 7*time.Second, "fleet", true
	web.Jump = []inventory.Host{
		{Name: "bastion:2200", Address: "bastion", SSH: inventory.SSH{User: "ops", Port: 2200}},
		{Name: "inner", Address: "inner"},
	}
	special := web
	special.Alias, special.Host = "web9", "web9.example.com"
	special.Identities = []string{home + "/special", home + "/keys/deploy@web9.example.com:2222"}
	direct := *defaults
	direct.Alias, direct.Host, direct.AgentSocket = "direct", "direct", ""
	direct.ProxyRaw = "connect --user %r %n %h %p 100%%"
	direct.ProxyCommand = "connect --user " + me.Username + " direct direct 22 100%"
	direct.KnownHosts = []string{home + "/known", home + "/known2"}
	own := inventory.SSH{
		User: "root", Port: 2022, Identity: []string{"~/mine"}, Jump: "none", KnownHosts: []string{"~/hosts"}, HostKeys: "strict", Become: "sudo",
	}
	overridden := web
	overridden.User, overridden.Port, overridden.Jump = "root", "2022", nil
	overridden.Identities, overridden.IdentitiesGiven = []string{home + "/mine"}, true
	overridden.KnownHosts, overridden.AcceptNew, overridden.Become = []string{home + "/hosts"}, false, "sudo"

	tests := map[string]struct {
		host inventory.Host
		want Settings
	}{
		"nothing said":           {inventory.Host{Name: "other"}, *defaults},
		"a block":                {inventory.Host{Name: "web1"}, web},
		"an address":             {inventory.Host{Name: "x", Address: "web1"}, web},
		"an included file":       {inventory.Host{Name: "web9"}, special},
		"a proxy command":        {inventory.Host{Name: "direct"}, direct},
		"the inventory's own":    {inventory.Host{Name: "web1", SSH: own}, overridden},
		"the jump host's own":    {inventory.Host{Name: "other", SSH: inventory.SSH{Jump: "other"}}, *defaults},
		"an address with a port": {inventory.Host{Name: "other", SSH: inventory.SSH{Jump: "ssh://[::1]:22"}}, withJump(*defaults, inventory.Host{Name: "[::1]:22", Address: "::1", SSH: inventory.SSH{Port: 22}})},
	}
	for _, mode := range []string{"ssh", "no ssh"} {
		t.Run(mode, func(t *testing.T) {
			if mode == "no ssh" {
				withoutSSH(t)
			}
			for name, tt := range tests {
				got := resolve(t, &Reader{Gates: new(gate.Set), Log: slog.New(slog.DiscardHandler), File: file}, tt.host)
				got.Identities = slices.DeleteFunc(got.Identities, func(file string) bool {
					return strings.HasSuffix(file, "/id_xmss") || strings.HasSuffix(file, "/id_dsa") // not in all versions
				})
				if diff := cmp.Diff(tt.want, *got); diff != "" {
					t.Errorf("%s:\n%s", name, diff)
				}
			}
		})
	}
}

func withJump(s Settings, hosts ...inventory.Host) Settings {
	s.Jump = hosts
	return s
}

func TestConfigThatOnlySSHUnderstandsIsLeftOutWithAWarning(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(file, []byte("Match exec \"true\"\n User deploy\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	d := &Reader{Gates: new(gate.Set), Log: slog.New(slog.NewTextHandler(&log, nil)), File: file}
	if got := resolve(t, d, inventory.Host{Name: "web1"}); got.User != "deploy" {
		t.Errorf("with ssh: user %q", got.User)
	}
	withoutSSH(t)
	got := resolve(t, d, inventory.Host{Name: "web1"})
	if got.User == "deploy" || !strings.Contains(log.String(), file) {
		t.Errorf("user %q; log: %s", got.User, log.String())
	}
}

func TestConfigThatSSHRefusesIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(file, []byte("Port many\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := (&Reader{Gates: new(gate.Set), Log: slog.New(slog.DiscardHandler), File: file}).Resolve(t.Context(), inventory.Host{Name: "web1"})
	if !errors.Is(err, plugins.Invalid) || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("got %v", err)
	}
}

func TestExpandVariables(t *testing.T) {
	t.Setenv("TEAL_A", "a${TEAL_A}")
	for in, want := range map[string]string{
		"x": "x", "${TEAL_A}/${TEAL_NONE}b": "a${TEAL_A}/b", "$TEAL_A": "$TEAL_A", "${TEAL_A": "${TEAL_A", "": "",
	} {
		if got := expandVariables(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}
