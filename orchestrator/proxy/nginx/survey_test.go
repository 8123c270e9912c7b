package nginx

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseTitle(t *testing.T) {
	for title, want := range map[string][]string{
		"nginx: master process nginx":                                                      nil,
		"nginx: master process /usr/sbin/nginx -g daemon on; master_process on;":           {"-g", "daemon on; master_process on;"},
		"nginx: master process nginx -p /srv/ -c conf/a.conf":                              {"-p", "/srv/", "-c", "conf/a.conf"},
		"nginx: master process nginx -c/etc/a.conf -q -e /dev/null":                        {"-c", "/etc/a.conf", "-e", "/dev/null"},
		"nginx: master process nginx -g daemon off; -c /etc/a.conf":                        {"-g", "daemon off;", "-c", "/etc/a.conf"},
		"nginx: master process nginx -g":                                                   {"-g", ""},
		"nginx: master process /usr/local/openresty/nginx/sbin/nginx -gpid /run/a.pid; -q": {"-g", "pid /run/a.pid;"},
	} {
		if diff := cmp.Diff(want, parseTitle(title)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", title, diff)
		}
	}
}

func TestParseMaster(t *testing.T) {
	got := parseMaster("12\n0\n/usr/sbin/nginx (deleted)\n/\nnginx: master process nginx -c /a\n")
	want := master{pid: 12, uid: "0", exe: "/usr/sbin/nginx", cwd: "/", flags: []string{"-c", "/a"}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(master{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(master{pid: 12}, parseMaster("12"), cmp.AllowUnexported(master{})); diff != "" {
		t.Errorf("cut short (-want +got):\n%s", diff)
	}
}

func TestParseDump(t *testing.T) {
	said, files := parseDump("nginx: [warn] x\nnginx: ok\n# configuration file /etc/nginx/nginx.conf:\nhttp {\n# configuration file is not a path:\n}\n\n# configuration file /etc/nginx/b:\n")
	if said != "nginx: [warn] x\nnginx: ok\n" {
		t.Errorf("said %q", said)
	}
	want := []confFile{{"/etc/nginx/nginx.conf", "http {\n# configuration file is not a path:\n}\n\n"}, {"/etc/nginx/b", ""}}
	if diff := cmp.Diff(want, files, cmp.AllowUnexported(confFile{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestPathsOfAnNginx(t *testing.T) {
	const build = "configure arguments: --prefix=/usr/share/nginx --conf-path=/etc/nginx/nginx.conf --error-log-path=/var/log/nginx/error.log"
	for name, c := range map[string]struct {
		master        master
		build, conf   string
		mainPath, log string
	}{
		"as built":         {master{}, build, "", "/etc/nginx/nginx.conf", "/var/log/nginx/error.log"},
		"nothing built in": {master{}, "", "", "/usr/local/nginx/conf/nginx.conf", "/usr/local/nginx/logs/error.log"},
		"flags":            {master{cwd: "/home", flags: []string{"-p", "x", "-c", "y.conf"}}, build, "error_log e.log warn;", "/home/x/y.conf", "/home/x/e.log"},
		"configured":       {master{flags: []string{"-c", "/a/./b"}}, build, "error_log /var/log/e;", "/a/b", "/var/log/e"},
		"to stderr":        {master{}, build, "error_log stderr;", "/etc/nginx/nginx.conf", ""},
		"to syslog":        {master{}, build, "error_log syslog:server=x;", "/etc/nginx/nginx.conf", ""},
	} {
		s := survey{master: c.master, build: c.build, conf: mustTree(t, c.conf)}
		if got := s.mainPath(c.build); got != c.mainPath {
			t.Errorf("%s: main file %s", name, got)
		}
		if got := s.errorLog(); got != c.log {
			t.Errorf("%s: error log %s", name, got)
		}
	}
}

func TestLoggedSaysEachThingOnce(t *testing.T) {
	got := logged([]byte("2026/01/01 [emerg] 7#7: bind() failed\n2026/01/01 [emerg] 7#7: bind() failed\n2026/01/01 [emerg] 7#7: still could not bind()\n\n"))
	if want := "[emerg] 7#7: bind() failed; [emerg] 7#7: still could not bind()"; got != want {
		t.Errorf("%q", got)
	}
	if got := logged(nil); got != "its error log says why" {
		t.Errorf("%q", got)
	}
}
