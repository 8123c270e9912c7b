package orchestrator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/teal-deploy/teal/orchestrator/image"
	"github.com/teal-deploy/teal/orchestrator/record"
	"github.com/teal-deploy/teal/orchestrator/spec"
	"github.com/teal-deploy/teal/plugins"
)

// pullUpload is the value of image.pull for an image of the operator's machine.
const pullUpload = "upload"

// An upload is an image that the run sends, and what it is once it is packed.
type upload struct {
	*image.Upload
	packed *image.Packed
}

// uploadOf returns the upload of an app's image. Hosts that want the same one
// share it.
func (r *run) uploadOf(app spec.App) *upload {
	l := image.Local{Name: app.Image.Name, Dir: r.d.Images}
	if app.Image.Archive != "" {
		l.Archive = app.Image.Archive
		if !filepath.IsAbs(l.Archive) {
			l.Archive = filepath.Join(r.req.File.Dir(), l.Archive)
		}
	}
	if r.uploads[l] == nil {
		r.uploads[l] = &upload{Upload: image.NewUpload(l)}
	}
	return r.uploads[l]
}

// sends reports whether the host's image comes from the operator's machine and
// is not there yet.
func (h *hostRun) sends() bool {
	return h.app.Image.Pull == pullUpload && !h.plan.Instant && h.image.Reference == ""
}

// keepImage looks whether the host has an uploaded image from an earlier
// deployment, by the name that it was sent under then.
func (r *run) keepImage(ctx context.Context, h *hostRun) error {
	if !h.sends() {
		return nil
	}
	for _, reference := range h.sent() {
		img, err := h.runtime.Pull(ctx, h.conn, plugins.PullRequest{Image: reference, Policy: plugins.PullNever})
		_, digest, pinned := strings.Cut(reference, "@")
		switch {
		case errors.Is(err, plugins.NotFound), err == nil && pinned && img.Digest != digest:
			continue
		case err != nil:
			return err
		}
		h.has(img.Reference)
		r.say(h, StepImage, StatusDone, "%s is there already", short(h.image.Digest))
		return nil
	}
	return nil
}

// sent returns the names under which the host got the image that it is to have
// now.
func (h *hostRun) sent() []string {
	var names []string
	for _, release := range append([]record.Release{h.plan.To}, h.remembers.Kept...) {
		if name := release.Image.Reference; release.App.Image.Pull == pullUpload && name != "" &&
			release.Image.Digest == h.plan.To.Image.Digest && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// packImages makes what is to be sent ready, once for all hosts.
func (r *run) packImages(ctx context.Context) error {
	for _, h := range r.active() {
		if !h.sends() {
			continue
		}
		u := r.uploadOf(h.app)
		if u.packed != nil {
			continue
		}
		// In a deployment this is known already. In a return it is the way for
		// hosts that have lost the image.
		digest, err := u.Digest(ctx)
		want := h.plan.To.Image.Digest
		if err != nil {
			return fmt.Errorf("%s no longer has %s: %w", h.inv.Name, short(want), err)
		}
		if digest != want {
			return &plugins.Error{
				Op: "upload " + h.app.Image.Name, Kind: plugins.NotFound,
				Err: fmt.Errorf("%s no longer has %s, and this machine has %s by that name", h.inv.Name, short(want), short(digest)),
			}
		}
		if u.packed, err = u.Pack(ctx); err != nil {
			return err
		}
	}
	return nil
}

// pinImage finds out the digest by pulling on one host, when the registry
// could not be asked from the operator's machine.
func (r *run) pinImage(ctx context.Context, h *hostRun) error {
	if r.digest != "" || h.plan.Instant || h.app.Image.Name == "" {
		return nil
	}
	if err := r.pullImage(ctx, h); err != nil {
		return err
	}
	r.digest = h.image.Digest
	return nil
}

// pullImage is step 1.
func (r *run) pullImage(ctx context.Context, h *hostRun) error {
	if h.plan.Instant || h.image.Reference != "" || h.app.Image.Name == "" {
		return nil
	}
	r.say(h, StepImage, StatusStarted, "%s", h.app.Image.Name)
	if h.sends() {
		return r.sendImage(ctx, h)
	}
	req := plugins.PullRequest{
		Image: h.app.Image.Name, Policy: plugins.PullPolicy(h.app.Image.Pull), Auth: h.auth,
		Progress: r.lines(h, StepImage),
	}
	if r.digest != "" && req.Policy == plugins.PullAlways {
		// A digest names the content: a host that has it needs no registry.
		pinned, err := image.Pin(req.Image, r.digest)
		if err != nil {
			return err
		}
		req.Image, req.Policy = pinned, plugins.PullMissing
	}
	img, took, err := r.pull(ctx, h, req)
	if err != nil {
		return err
	}
	if r.digest != "" && img.Digest != r.digest {
		return h.otherImage(img.Digest, r.digest)
	}
	h.image, h.plan.To.Image = img, img
	r.say(h, StepImage, StatusDone, "%s in %s", short(img.Digest), tidy(took))
	return nil
}

// pull has the host pull, and returns how long that took. A host that has the
// image does not wait for others.
func (r *run) pull(ctx context.Context, h *hostRun, req plugins.PullRequest) (img plugins.Image, took time.Duration, err error) {
	began := time.Now()
	if req.Policy != plugins.PullAlways {
		look := req
		look.Policy = plugins.PullNever
		img, err = h.runtime.Pull(ctx, h.conn, look)
		if req.Policy == plugins.PullNever || !errors.Is(err, plugins.NotFound) {
			return img, time.Since(began), err
		}
	}
	done, err := r.pullTurn(ctx, h)
	if err != nil {
		return plugins.Image{}, 0, err
	}
	defer done()
	began = time.Now()
	img, err = h.runtime.Pull(ctx, h.conn, req)
	return img, time.Since(began), err
}

// otherImage says that a host has another image than it was to get.
func (h *hostRun) otherImage(has, want string) error {
	return &plugins.Error{
		Op: "pull " + h.app.Image.Name, Host: h.inv.Name, Kind: plugins.Conflict,
		Err: fmt.Errorf("this host has %s, the others have %s: they would not run the same image", has, want),
	}
}

// pullTurn waits until it is the host's turn to pull: image.pull_parallel hosts
// do so at the same time, in the order in which they came.
func (r *run) pullTurn(ctx context.Context, h *hostRun) (done func(), err error) {
	done = func() { r.pulls.Release(1) }
	if r.pulls.TryAcquire(1) {
		return done, nil
	}
	r.say(h, StepImage, StatusInfo, "waits for its turn to pull, %d at a time", r.pullers)
	if r.pulls.Acquire(ctx, 1) != nil {
		return nil, context.Cause(ctx)
	}
	return done, nil
}

// sendImage serves the image to the host through its own connection and has it
// pulled from there.
func (r *run) sendImage(ctx context.Context, h *hostRun) error {
	done, err := r.pullTurn(ctx, h)
	if err != nil {
		return err
	}
	defer done()
	began := time.Now()
	l, err := h.conn.Listen(ctx, "127.0.0.1:0")
	if err != nil {
		return &plugins.Error{Op: "upload " + h.app.Image.Name, Host: h.inv.Name, Kind: plugins.KindOf(err), Err: err}
	}
	packed := r.uploadOf(h.app).packed
	serving := packed.Serve(l, r.login)
	defer serving.Close()
	defer r.tellSent(h, serving)()
	img, err := h.runtime.Pull(ctx, h.conn, plugins.PullRequest{
		Image: serving.Reference, Policy: plugins.PullMissing, Auth: &r.login, Progress: r.lines(h, StepImage),
	})
	switch {
	case err != nil && !serving.Asked() && errors.Is(err, plugins.Unavailable):
		return &plugins.Error{
			Op: "upload " + h.app.Image.Name, Host: h.inv.Name, Kind: plugins.Unsupported,
			Err: fmt.Errorf("the engine does not reach the loopback address of its own host, as one with a network of its own does not "+
				"(Docker without root): give it the image by a registry: %w", err),
		}
	case err != nil:
		return err
	case img.Digest != packed.Digest:
		return h.otherImage(img.Digest, packed.Digest)
	}
	h.has(img.Reference)
	r.say(h, StepImage, StatusDone, "%s in %s, %s sent", short(h.image.Digest), tidy(time.Since(began)), size(serving.Sent()))
	return nil
}

// tellEvery is how often it is said how much of an image has been sent.
const tellEvery = 5 * time.Second

// tellSent says now and then how much has been sent, until it is told to end:
// not every runtime says how far it is.
func (r *run) tellSent(h *hostRun, s *image.Serving) (end func()) {
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(cmp.Or(r.d.telling, tellEvery))
		defer tick.Stop()
		for last := int64(0); ; {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			if n := s.Sent(); n != last {
				r.say(h, StepImage, StatusInfo, "%s sent so far", size(n))
				last = n
			}
		}
	}()
	return func() {
		close(stop)
		<-ended
	}
}

// has notes the name by which the host has the uploaded image.
func (h *hostRun) has(reference string) {
	h.image = plugins.Image{Reference: reference, Digest: h.plan.To.Image.Digest}
	h.plan.To.Image = h.image
}

// size is a number of bytes for people.
func size(n int64) string {
	const step = 1000
	switch {
	case n < step:
		return count(int(n), "byte")
	case n < step*step:
		return fmt.Sprintf("%.1f kB", float64(n)/step)
	}
	return fmt.Sprintf("%.1f MB", float64(n)/(step*step))
}

// resolveDigest returns the digest of the host's image, or "" when only the
// hosts can find out, or there is no image.
func (r *run) resolveDigest(ctx context.Context, h *hostRun) (string, error) {
	if h.app.Image.Name == "" {
		return "", nil
	}
	switch h.app.Image.Pull {
	case pullUpload:
		return r.uploadOf(h.app).Digest(ctx)
	case string(plugins.PullAlways):
		return r.askRegistry(ctx, h)
	}
	img, err := h.runtime.Pull(ctx, h.conn, plugins.PullRequest{Image: h.app.Image.Name, Policy: plugins.PullNever})
	if err == nil {
		return img.Digest, nil
	}
	if h.app.Image.Pull == string(plugins.PullNever) || !errors.Is(err, plugins.NotFound) {
		return "", err
	}
	return r.askRegistry(ctx, h)
}

// askRegistry asks the registry, from here, for the digest of the host's image.
func (r *run) askRegistry(ctx context.Context, h *hostRun) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	digest, err := image.Resolve(ctx, h.app.Image.Name, h.auth)
	if errors.Is(err, plugins.Unavailable) {
		r.say(nil, StepImage, StatusInfo, "the registry does not answer from here; %s is asked instead", h.inv.Name)
		return "", nil
	}
	return digest, err
}
