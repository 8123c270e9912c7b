package nginx

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/teal-deploy/teal/orchestrator/proxy"
)

func TestSitesThatCouldFailRequests(t *testing.T) {
	const kept = `proxy_http_version 1.1; proxy_set_header Connection "";`
	const fresh = "a new connection for each request to shop"
	for name, c := range map[string]struct {
		http  string
		want  []string // parts of the warnings
		grpc  bool
		since bool // an nginx that keeps connections without being told
	}{
		"as Usage has it":                  {http: "server { " + new(Proxy).Usage(layout()) + " }"},
		"kept":                             {http: "server { location / { proxy_pass http://shop/a/; " + kept + " } }"},
		"kept by the server":               {http: "server { " + kept + " location / { proxy_pass http://shop; } }"},
		"kept by a snippet":                {http: "server { location / { include s.conf; proxy_pass http://shop; } }"},
		"kept by all":                      {http: kept + " server { location / { if ($a) { proxy_pass http://shop; } } }"},
		"kept by itself":                   {http: "server { location / { proxy_pass http://shop; } }", since: true},
		"another's":                        {http: "server { location / { proxy_pass http://news; } }"},
		"not kept":                         {http: "server { location / { proxy_pass http://shop; } }", want: []string{"nginx.conf:1: " + fresh}},
		"old protocol":                     {http: `server { location / { proxy_pass http://shop; proxy_set_header Connection ""; } }`, want: []string{fresh}},
		"closed":                           {http: `server { location / { proxy_pass http://shop; proxy_http_version 1.1; proxy_set_header Connection close; } }`, want: []string{fresh}},
		"headers of the server are hidden": {http: "server { " + kept + " location / { proxy_pass http://shop; proxy_set_header Host $host; } }", want: []string{fresh}},
		"repeats":                          {http: "proxy_next_upstream error non_idempotent; server { location / { proxy_pass http://shop; " + kept + " } }", want: []string{"nginx.conf:1: non_idempotent"}},
		"repeats elsewhere":                {http: "server { location / { proxy_pass http://shop; " + kept + " } location /b { proxy_pass http://b; proxy_next_upstream non_idempotent; } }"},
		"to a slot":                        {http: "server { location / { proxy_pass http://localhost:20002/x; } }", want: []string{"leads to a slot, past every switch: write proxy_pass http://shop"}},
		"an upstream of slots":             {http: "upstream u { server 127.0.0.1:20001 weight=2; server 127.0.0.1:3; }", want: []string{"127.0.0.1:20001 is a slot"}},
		"the wrong protocol":               {http: "server { location / { grpc_pass grpc://shop; } }", want: []string{"write proxy_pass http://shop"}},
		"TLS to the app":                   {http: "server { location / { proxy_pass https://shop; } }", want: []string{"write proxy_pass http://shop"}},
		"gRPC":                             {http: "server { location / { grpc_pass shop; } }", grpc: true},
		"gRPC that repeats":                {http: "server { location / { grpc_pass grpc://shop; grpc_next_upstream error non_idempotent; } }", grpc: true, want: []string{"non_idempotent"}},
		"gRPC by the wrong protocol":       {http: "server { location / { proxy_pass http://shop; } }", grpc: true, want: []string{"write grpc_pass grpc://shop"}},
		"gRPC to a slot":                   {http: "server { location / { grpc_pass 127.0.0.1:20001; } }", grpc: true, want: []string{"write grpc_pass grpc://shop"}},
		"of teal itself":                   {http: "include teal-shop.conf;"},
	} {
		t.Run(name, func(t *testing.T) {
			l := layout()
			if c.grpc {
				l.Protocol = proxy.GRPC
			}
			tr := mustTree(t, "http { "+c.http+" }", "/etc/nginx/s.conf\n"+kept,
				"/etc/nginx/teal-shop.conf\nserver { location / { proxy_pass http://shop; } } upstream x { server 127.0.0.1:20001; }")
			got := tr.sites(l, "/etc/nginx/teal-shop.conf", c.since)
			if len(got) != len(c.want) {
				t.Fatalf("%q", got)
			}
			for i, w := range c.want {
				if !strings.Contains(got[i], w) {
					t.Errorf("%q does not say %q", got[i], w)
				}
			}
		})
	}
}

func TestKeepsAliveByItself(t *testing.T) {
	for build, want := range map[string]bool{
		"nginx version: nginx/1.29.7\n": true, "nginx version: nginx/1.31.0\n": true,
		"nginx version: nginx/1.29.6\n": false, "nginx version: nginx/1.22.1\n": false, "": false,
	} {
		if got := (survey{build: build}).keepsAlive(); got != want {
			t.Errorf("%q: %t", build, got)
		}
	}
}

func TestUsage(t *testing.T) {
	l := layout()
	want := `location / {
    proxy_pass http://shop;
    proxy_http_version 1.1;
    proxy_set_header Connection $teal_shop_connection;
    proxy_set_header Host $http_host;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto $scheme;
}
`
	if diff := cmp.Diff(want, new(Proxy).Usage(l)); diff != "" {
		t.Errorf("HTTP (-want +got):\n%s", diff)
	}
	l.Protocol = proxy.GRPC
	if got := new(Proxy).Usage(l); !strings.Contains(got, "    grpc_pass grpc://shop;\n") || strings.Contains(got, "proxy_pass") {
		t.Errorf("gRPC:\n%s", got)
	}
	l.Site = &proxy.Site{}
	if got := new(Proxy).Usage(l); got != "" {
		t.Errorf("with a site: %q", got)
	}
	l.Site, l.Upstream = nil, "a b"
	if got := new(Proxy).Usage(l); got != "" {
		t.Errorf("what cannot be written: %q", got)
	}
}

func TestNamesOfMembers(t *testing.T) {
	seen := map[string]string{}
	for _, name := range []string{"web1", "WEB1", "web1.example.com", "web_1", "web-1", "10.0.0.2:2222", "deploy@web1", "../x", ".away", "ümlaut", "a b"} {
		tok := token(name)
		if strings.ContainsAny(tok, "./ :@") || seen[strings.ToLower(tok)] != "" {
			t.Errorf("%s is %s, as is %q", name, tok, seen[strings.ToLower(tok)])
		}
		seen[strings.ToLower(tok)] = name
		if got, ok := memberOf(tok); got != name || !ok {
			t.Errorf("%s became %s and that %q", name, tok, got)
		}
	}
	for _, tok := range []string{"", "a_", "a_2", "a_zz"} {
		if got, ok := memberOf(tok); ok {
			t.Errorf("%q is %q", tok, got)
		}
	}
}

func TestParseSet(t *testing.T) {
	const list = `total 0
lrwxrwxrwx 1 root root 7 Nov 23 01:00 web1 -> ../w005
lrwxrwxrwx    1 1000     1000             6 Nov 23 01:00 web2_2eeu -> ../off
lrwxrwxrwx 1 root root 7 Nov 23 01:00 web3 -> ../w101
lrwxrwxrwx 1 root root 7 Nov 23 01:00 web4 -> w005
lrwxrwxrwx 1 root root 7 Nov 23 01:00 web5_ -> ../w005
-rw-r--r-- 1 root root 7 Nov 23 01:00 web6
`
	want := proxy.Route{"web1": 5, "web2.eu": proxy.Off}
	if diff := cmp.Diff(want, parseSet(list)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
