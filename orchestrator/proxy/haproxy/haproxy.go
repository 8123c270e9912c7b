// Package haproxy switches apps behind an haproxy that already runs on a host.
//
// The rule: never a reload in a switch. Prepare writes a block of sections for
// an app, and a switch changes a datum that these read for each request: a map
// with a line a member, the percent that green gets, or -1 when the member is
// off. The map file is written first, by renaming, so that what is on disk is
// what any later start of haproxy serves; then the map that runs is changed on
// the admin socket, all members in one version that is committed at once. The
// socket is reached through the connection to the host: no tool is needed
// there, and no right but to write in the app's folder and to open the socket.
//
// The sections, for an app shop with members web1, web2:
//
//	backend  shop                 what the user's frontend refers to: balances over the members
//	frontend teal:shop:web1       on the stable port: picks the slot of each request
//	backend  teal:shop:web1:blue  a server a replica, those of the other slot stand in
//	backend  teal:shop            for a member that serves nothing: one that does
//	frontend teal:shop:site       with a Site: the public listener
//
// The port in between is what makes members independent, gives health checks
// something true to ask (a member that is off or down says 503), and makes a
// reload harmless: a worker that leaves forwards new connections to the one
// that stays. A member that serves nothing decides by the shares and states of
// all others who takes the request, so that two of them never forward to each
// other.
//
// The admin socket's yes is not the proof. The proof is what haproxy answers
// at /.teal/slot on the stable port: the variable that routes the request, and
// the names of the releases in both slots, out of a second map.
// An app that speaks no HTTP cannot be asked there: the expression that routes
// it answers for it in the same process, on a unix socket in the app's folder.
//
// The block has a defaults section of its own, so that nothing of the user's
// (mode, timeouts, httpclose, error files) reaches it, and stands last, so that
// nothing of it reaches them: at the end of the last file, or in a file of its
// own where haproxy reads a folder. No byte of theirs changes.
//
// The one reload, in Prepare, is asked of the master, after haproxy -c has read
// the very files and every new port was seen free: haproxy finds a taken port
// in the middle of a reload, and refuses all connections while it tries again.
// It is believed when the new workers answer with the new generation, else the
// former file is put back. It loses no request where the frontends have
// `option idle-close-on-response`; Check warns where one has not.
//
// What haproxy itself counts as open to a slot is exact, and is shown. But after
// a reload it leaves out what the former workers still carry, so that a teardown
// goes by the sockets on the server: those see everybody, and haproxy's idle
// ones, which last up to seven seconds, are gone before the usual delay is over.
//
// The boundary: TLS, names and certificates are the user's frontend. The host
// needs a POSIX shell, the tools of coreutils or busybox, /proc, and haproxy
// 2.2 or later as a master with workers, outside of a container. The app's
// folder must stay where it is: haproxy does not start without a map.
package haproxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"

	"github.com/teal-deploy/teal/orchestrator/proxy"
	"github.com/teal-deploy/teal/orchestrator/proxy/conffile"
	"github.com/teal-deploy/teal/plugins"
)

// A Proxy is the haproxy of a host. The zero value finds it by itself.
type Proxy struct {
	// Config is a configuration file or folder of the haproxy to use, where a
	// host runs several: an absolute path, as its -f has it. Empty: the only
	// one there is, or the one that has the app's block already.
	Config string
}

var _ proxy.Proxy = (*Proxy)(nil)

// Check says what keeps Prepare and Switch from working, and changes nothing.
// Kinds: NotFound for an haproxy that is not installed, Unavailable for one
// that does not run or does not answer on its admin socket, Denied for missing
// rights or a missing admin socket, Unsupported for one that is too old or has
// no master, Invalid for a configuration that haproxy itself refuses or a
// layout that cannot be written, Conflict for a name or a port that something
// else uses.
func (p *Proxy) Check(ctx context.Context, h plugins.Host, l proxy.Layout) (warnings []string, err error) {
	block, generation, err := text(l)
	if err != nil {
		return nil, failed(h, "write the configuration of "+l.App, plugins.Invalid, err)
	}
	s, _, err := p.usable(ctx, h, l)
	if err != nil {
		return nil, err
	}
	if _, err := s.writing(l, block); err != nil {
		return nil, failed(h, "use haproxy for "+l.App, plugins.Conflict, err)
	}
	seen, err := look(ctx, h, l, l.Members)
	if err != nil {
		return nil, err
	}
	return s.warn(l, seen.ready(l, block, generation)), nil
}

// usable surveys the haproxy of the app and refuses one that teal cannot use.
func (p *Proxy) usable(ctx context.Context, h plugins.Host, l proxy.Layout) (survey, string, error) {
	s, err := p.survey(ctx, h, l)
	if err != nil {
		return survey{}, "", err
	}
	if err := s.refuse(h, l); err != nil {
		return survey{}, "", err
	}
	address, err := s.admin()
	if err != nil {
		return survey{}, "", failed(h, "use haproxy for "+l.App, plugins.Denied, err)
	}
	if _, err := (admin{h, address}).ask(ctx, "show map"); err != nil {
		return survey{}, "", err
	}
	return s, address, nil
}

// Prepare writes the map file and the app's block where they are not as they
// should be. Where all is as it should be that takes one command and a
// connection a member, and no rights. Errors have the kinds of Check.
func (p *Proxy) Prepare(ctx context.Context, h plugins.Host, l proxy.Layout) (changed bool, err error) {
	block, generation, err := text(l)
	if err != nil {
		return false, failed(h, "write the configuration of "+l.App, plugins.Invalid, err)
	}
	seen, err := look(ctx, h, l, l.Members)
	if err != nil || seen.ready(l, block, generation) {
		return false, err
	}
	if !seen.written || !seen.named || seen.mapErr != nil {
		// Without it haproxy refuses even the configuration that it runs.
		if err := makeMap(ctx, h, l, data{seen.shares(l), seen.names(l)}); err != nil {
			return false, err
		}
	}
	s, address, err := p.usable(ctx, h, l)
	if err != nil {
		return false, err
	}
	w, err := s.writing(l, block)
	if err != nil {
		return false, failed(h, "use haproxy for "+l.App, plugins.Conflict, err)
	}
	// Until the reload has taken, the former members are needed as well.
	wanted := seen.shares(l)
	both := maps.Clone(seen.disk)
	maps.Copy(both, wanted)
	if err := makeMap(ctx, h, l, data{both, seen.names(l)}); err != nil {
		return false, err
	}
	if !bytes.Equal(w.text, w.file.text) || !seen.answered() || seen.outdated(l, block, generation) {
		if err := s.load(ctx, h, l, w, generation, wanted); err != nil {
			return false, errors.Join(err, seen.unmake(ctx, h, l))
		}
	}
	stays := data{wanted, seen.names(l)}.with(nil, nil)
	if err := makeMap(ctx, h, l, stays); err != nil {
		return false, err
	}
	if err := (admin{h, address}).load(ctx, l, stays, l.Members); err != nil {
		return false, err
	}
	if err := prove(ctx, h, l, l.Members, proofWithin, serves(wanted, nil)); err != nil {
		return false, failed(h, "prepare "+l.App, plugins.Unavailable, err)
	}
	return true, note{place: w.file.path, admin: address}.write(ctx, h, l)
}

// shares returns what each member of the layout shall serve: what the disk
// says, else what haproxy serves now, else nothing.
func (s sight) shares(l proxy.Layout) proxy.Route {
	route := proxy.Route{}
	for _, m := range l.Members {
		share, ok := s.disk[m.Name]
		if a := s.live[m.Name]; !ok && a.err == nil {
			share, ok = a.share, true
		}
		if !ok {
			share = proxy.Off
		}
		route[m.Name] = share
	}
	return route
}

// names returns which releases the slots hold: what the disk says, else what
// haproxy says now.
func (s sight) names(l proxy.Layout) proxy.Releases {
	holds := maps.Clone(s.holds)
	for _, m := range l.Members {
		if holds[m.Name] == nil {
			holds.Set(m.Name, s.live[m.Name].holds)
		}
	}
	return holds
}

// unmake puts the map file back that was there before. One that was not there
// stays: a configuration that refers to it may be on disk.
func (s sight) unmake(ctx context.Context, h plugins.Host, l proxy.Layout) error {
	if !s.written || s.mapErr != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoWithin)
	defer cancel()
	return makeMap(ctx, h, l, data{s.disk, s.holds})
}

// load puts the file in its place and proves that haproxy runs with it.
func (s survey) load(ctx context.Context, h plugins.Host, l proxy.Layout, w writing, generation string, route proxy.Route) error {
	file := conffile.File{Path: w.file.path, Content: w.text, Mode: fs.FileMode(w.file.mode), Become: true}
	return conffile.Replace(ctx, h, file, conffile.Program{
		Check:  s.check(w),
		Reload: func(ctx context.Context) error { return s.reload(ctx, h) },
		Verify: func(ctx context.Context) error {
			return prove(ctx, h, l, l.Members, takenWithin, func(m proxy.Member, a answer) error {
				if a.generation != generation {
					return fmt.Errorf("it runs generation %s of the configuration, not %s", a.generation, generation)
				}
				return serves(route, nil)(m, a)
			})
		},
	})
}

// Usage returns the lines for the user's frontend.
func (p *Proxy) Usage(l proxy.Layout) string {
	switch {
	case l.Site != nil:
		return ""
	case l.Protocol == proxy.TCP:
		return fmt.Sprintf("    mode tcp\n    default_backend %s\n", l.Upstream)
	case l.Protocol == proxy.GRPC:
		return fmt.Sprintf("    mode http\n    # bind :443 ssl crt FILE alpn h2\n    option idle-close-on-response\n    default_backend %s\n", l.Upstream)
	}
	return fmt.Sprintf("    mode http\n    option idle-close-on-response\n    default_backend %s\n", l.Upstream)
}

// failed makes the package's errors: operation, subject, kind, cause.
func failed(h plugins.Host, op string, kind plugins.Kind, cause error) error {
	return &plugins.Error{Op: op, Host: h.String(), Kind: kind, Err: cause}
}
