// Package nginx switches apps behind an nginx that already runs on a host: the
// host's own, or a load balancer of several.
//
// The rule: never a reload in a switch. Prepare writes one file, teal-APP.conf,
// with both slots of every member and a server on their stable loopback ports
// that picks the slot of each request by looking for a file:
// `if (-f route/cur/MEMBER/BUCKET)`. route/cur is a symbolic link, and renaming
// one is the whole switch, of any set of members. It needs no right on the host
// but to write in the app's folder, survives restarts of nginx and of the host,
// and loses no request. The user's own sites lead to an upstream of the stable
// ports, as Usage has it, and keep all their settings; no file of theirs is ever
// changed.
//
// What is on disk is the truth. The proof is what nginx itself answers at
// /.teal/slot on a member's stable port: a file out of the folder that the links
// lead to, with the share and the releases in both slots, read by the very
// workers that route.
//
// A request never comes back because one member cannot take it. For a member
// that is off another one stands in, chosen evenly before anything is sent. A
// member whose servers refuse or do not take a connection hands the request to
// another, whatever its method, as nothing was sent; up to eight dead members
// are passed that way, and the last resort is the other slot. How often a
// request was handed on stands in the header Teal-Hop, which apps see and
// ignore. A server of several members that failed three times is left alone for
// 10 s, and one that is silent for 2 s has failed. A request that broke after it
// was sent is repeated only when its method allows that.
//
// An app that speaks gRPC has the same behind `listen … http2` and grpc_pass,
// with no limit on how long a stream is silent. One that speaks another
// protocol over TCP is refused: the stream module looks for no file, so that a
// switch would be a reload.
//
// The one reload, in Prepare, is sent to the master alone that reads the file,
// and is believed only when its old workers are on their way out and the new
// ones answer with the new file's generation: nginx accepts a configuration
// whose port is taken, and drops it a moment later without a word to the
// caller. A reload of nginx resets connections on which a request is on its
// way; so it is announced. A server that says
//
//	error_page 418 = @close;
//	location / { if (-f DIR/route/announce) { return 418; } … }
//	location @close { keepalive_timeout 0; … }
//
// closes each connection with its answer while the file exists. The servers
// that teal writes have this. A user's site may have it too; without it, and
// without keepalive_min_timeout of nginx 1.27.4, Check warns.
//
// The boundary: HTTP and gRPC; TLS, names and certificates are the user's site.
// The host needs a POSIX shell, the tools of coreutils or busybox, /proc, and
// nginx 1.15.3 or later (for gRPC 1.17.8) outside of a container. An
// open_file_cache of the user's does no harm: the servers of teal turn it off.
package nginx

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/orchestrator/proxy/conffile"
	"github.com/teal-deploy/teal/plugins"
)

// A Proxy is the nginx of a host. The zero value finds it by itself.
type Proxy struct {
	// Config is the main configuration file of the nginx to use, where a
	// host runs several: an absolute path. Empty: the only one there is, or
	// the one that has the app's file already.
	Config string
}

var _ proxy.Proxy = (*Proxy)(nil)

// proofWithin is how long nginx may take to answer as it should.
const proofWithin = 2 * time.Second

// Check says what keeps Prepare and Switch from working, and changes nothing.
// Kinds: NotFound for an nginx that is not installed, Unavailable for one that
// does not run, Denied for missing rights, Unsupported for one that is too old,
// was built without what the app's protocol needs or reads no folder of
// configuration files, and for an app that speaks TCP, Invalid for a
// configuration that nginx itself refuses or a layout that cannot be written,
// Conflict for a name or a port that something else uses.
func (p *Proxy) Check(ctx context.Context, h plugins.Host, l proxy.Layout) (warnings []string, err error) {
	conf, generation, err := text(l)
	if err != nil {
		return nil, unfit(h, "write the configuration of "+l.App, err)
	}
	s, err := p.survey(ctx, h, l)
	if err != nil {
		return nil, err
	}
	if err := s.refuse(h, l); err != nil {
		return nil, err
	}
	seen, err := look(ctx, h, l)
	if err != nil {
		return nil, err
	}
	return s.warn(l, seen.ready(l, conf, generation)), nil
}

// Prepare writes the app's configuration file, and the folder that the switch
// changes, when they are not as they should be. Where they are it takes one
// command and one connection a member, and no rights. Errors have the kinds of
// Check.
func (p *Proxy) Prepare(ctx context.Context, h plugins.Host, l proxy.Layout) (changed bool, err error) {
	conf, generation, err := text(l)
	if err != nil {
		return false, unfit(h, "write the configuration of "+l.App, err)
	}
	seen, err := look(ctx, h, l)
	if err != nil || seen.ready(l, conf, generation) {
		return false, err
	}
	repaired := !seen.intact(l) || seen.silent()
	s, err := p.survey(ctx, h, l)
	if err != nil {
		return false, err
	}
	if err := s.refuse(h, l); err != nil {
		return false, err
	}
	if err := makeRoute(ctx, h, l, s.current != nil); err != nil {
		return false, err
	}
	former := seen.disk
	if seen, err = look(ctx, h, l); err != nil {
		return false, err
	}
	if s.current != nil { // the login user may not be allowed to read it
		seen.conf = s.current
	}
	if !seen.loaded(conf, generation) {
		if err := s.load(ctx, h, l, conf, generation); err != nil {
			return false, errors.Join(err, forgetNew(ctx, h, l, former))
		}
		repaired = true
	}
	if err := keep(ctx, h, l, tokens(l.Members)); err != nil {
		return false, err
	}
	return repaired, note(ctx, h, l, s.place)
}

// forgetNew takes back that members were added, after a Prepare that failed.
func forgetNew(ctx context.Context, h plugins.Host, l proxy.Layout, former proxy.Route) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), proofWithin)
	defer cancel()
	var names []string
	for name := range former {
		names = append(names, token(name))
	}
	if len(names) == 0 {
		return nil // there was no datum, and it is nobody's now
	}
	return keep(ctx, h, l, names)
}

// load puts the file in its place and proves that nginx runs with it.
func (s survey) load(ctx context.Context, h plugins.Host, l proxy.Layout, conf []byte, generation string) error {
	verify := func(ctx context.Context) error {
		return together(l.Members, func(_ int, m proxy.Member) error {
			return prove(ctx, h, l, m, nil, func(a answer) error {
				if a.generation != generation {
					return fmt.Errorf("it runs generation %s of the configuration, not %s", a.generation, generation)
				}
				return nil
			})
		})
	}
	return conffile.Replace(ctx, h, conffile.File{Path: s.place, Content: conf, Become: true}, conffile.Program{
		Check:  s.command("-t", "-q"),
		Reload: func(ctx context.Context) error { return s.reload(ctx, h) },
		Verify: verify,
	})
}

// Observe reads the folder on the host and asks nginx, at the same time.
func (p *Proxy) Observe(ctx context.Context, h plugins.Host, l proxy.Layout) (proxy.Observation, error) {
	conf, generation, err := text(l)
	if err != nil {
		return proxy.Observation{}, unfit(h, "observe "+l.App, err)
	}
	seen, err := look(ctx, h, l)
	if err != nil {
		return proxy.Observation{}, err
	}
	return seen.observation(l, conf, generation), nil
}

// failed makes the package's errors: operation, subject, kind, cause.
func failed(h plugins.Host, op string, kind plugins.Kind, cause error) error {
	return &plugins.Error{Op: op, Host: h.String(), Kind: kind, Err: cause}
}
