package spec

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/teal-deploy/teal/inventory/tomlfile"
)

var (
	envExpr     = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	volumeExpr  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{1,127}$`)
	domainExpr  = regexp.MustCompile(`^(?:[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?$`)
	partExpr    = regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$`)
	tagExpr     = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)
	digestExpr  = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	helperExpr  = regexp.MustCompile(`^[A-Za-z0-9+.-]*::`)
	gitHostExpr = regexp.MustCompile(`^(?:[A-Za-z0-9_][A-Za-z0-9_.-]*@)?(?:[A-Za-z0-9_][A-Za-z0-9_.-]*|\[[0-9A-Fa-f:]+\])$`)
)

// image checks step 1.
func (c *checker) image() {
	const key = "image"
	img := c.app.Image
	if c.doc.Has(key) || slices.Contains(Builtins(), c.app.Runtime) { // a plugin may do without
		c.required(key+".name", "say which image, as registry.example.com/shop:${version}")
	}
	c.text(key+".name", img.Name, imageName)
	c.text(key+".pull", img.Pull, oneOf([]string{"always", "missing", "never", "upload"}))
	c.upload(img)
	const most = 256 // hosts that anything is done on at the same time
	if n := img.PullParallel; c.known(key+".pull_parallel") && (n < 1 || n > most) {
		c.fail(key+".pull_parallel", "that many hosts pull at the same time", "must be between 1 and %d, and is %d", most, n)
	}
	c.text(key+".username", img.Username, printable)
	c.secret(key+".password", img.Password)
	switch user, password := c.doc.Has(key+".username"), c.doc.Has(key+".password"); {
	case img.Pull == "upload": // which has no use for either
	case user && !password:
		c.failName(key+".username", "add image.password, or leave it out", "there is no password to it")
	case password && !user:
		c.failName(key+".password", "add image.username, or leave it out", "there is no user name to it")
	}
}

// upload checks what fits an image of the operator's machine, and what fits no
// other.
func (c *checker) upload(img Image) {
	if !c.known("image.pull") {
		return
	}
	if img.Pull != "upload" {
		if c.doc.Has("image.archive") {
			c.failName("image.archive", `set image.pull to "upload", or leave it out`, "is for an image that is uploaded from here")
		}
		return
	}
	c.text("image.archive", img.Archive, printable)
	for _, key := range []string{"image.username", "image.password"} {
		if c.doc.Has(key) {
			c.failName(key, "leave it out", "an upload asks no registry, and needs no login")
		}
	}
}

// imageName is the rule for [registry/]path[:tag][@digest].
func imageName(s string) error {
	fault := func(why, hint string) error {
		return &tomlfile.Fault{Message: fmt.Sprintf("%q is not an image: %s", s, why), Hint: hint}
	}
	rest, digest, pinned := strings.Cut(s, "@")
	if pinned && !digestExpr.MatchString(digest) {
		return fault("its digest is wrong", "write @sha256: and 64 of 0-9 and a-f")
	}
	if i := strings.LastIndexByte(rest, ':'); i > strings.LastIndexByte(rest, '/') {
		if !tagExpr.MatchString(rest[i+1:]) {
			return fault("its tag is wrong", "a tag is letters, digits, '_', '.' and '-'")
		}
		rest = rest[:i]
	}
	first, others, several := strings.Cut(rest, "/")
	if several && (strings.ContainsAny(first, ".:") || first == "localhost") {
		if !domainExpr.MatchString(first) {
			return fault("its registry is wrong", "write host/path or host:port/path")
		}
		rest = others
	}
	for part := range strings.SplitSeq(rest, "/") {
		switch {
		case partExpr.MatchString(part):
		case partExpr.MatchString(strings.ToLower(part)):
			return fault("its path has capital letters", fmt.Sprintf("did you mean %q?", strings.Replace(s, rest, strings.ToLower(rest), 1)))
		default:
			return fault("its path is wrong", "a path is a-z, 0-9 and between these '.', '_', '-' and '/'")
		}
	}
	return nil
}

// secret checks where a secret comes from.
func (c *checker) secret(key string, s *Secret) {
	if s == nil || !c.known(key) || !c.doc.IsTable(key) {
		return
	}
	kinds := 0
	for _, kind := range []string{"env", "file", "command", "age"} {
		if c.doc.Has(key + "." + kind) {
			kinds++
		}
	}
	if kinds != 1 && c.sound(key) {
		c.fail(key, `write { env = "NAME" }, { file = "path" } or { command = ["…"] }`, "must say exactly one of env, file and command")
	}
	c.text(key+".env", s.Env, matching(envExpr, "a name for an environment variable", "letters, digits and '_', not beginning with a digit"))
	c.text(key+".file", s.File, notEmpty)
	c.argv(key+".command", s.Command)
}

// argv checks a program and its arguments.
func (c *checker) argv(key string, argv []string) {
	if !c.doc.Has(key) || !c.known(key) {
		return
	}
	if len(argv) == 0 {
		c.fail(key, "name a program", "must not be empty")
		return
	}
	c.text(tomlfile.Index(key, 0), argv[0], notEmpty)
	for i, arg := range argv[1:] {
		c.text(tomlfile.Index(key, i+1), arg, noNUL)
	}
}

// code checks step 2.
func (c *checker) code() {
	code := c.app.Code
	if code == nil || !c.known("code") {
		return
	}
	c.required("code.repository", "say where the code comes from, or leave [code] out")
	c.text("code.repository", code.Repository, repository)
	c.text("code.ref", code.Ref, gitRef)
	c.required("code.path", "say where the app finds the code, as an absolute path in the container")
	c.text("code.path", code.Path, belowRoot)
	c.text("code.subdir", code.Subdir, relative)
	c.text("code.via", code.Via, oneOf([]string{"host", "controller"}))
	c.texts("code.identity", code.Identity, func(s string) error {
		if strings.HasPrefix(s, "-") {
			return fmt.Errorf("%q is not the path of a file", s)
		}
		return printable(s)
	})
}

// repository is the rule for what git fetches from.
func repository(s string) error {
	const hint = `write "git@host:path", "ssh://user@host:port/path", "https://host/path" or an absolute path`
	fault := func(why string) error {
		return &tomlfile.Fault{Message: fmt.Sprintf("%q is not a repository: %s", s, why), Hint: hint}
	}
	scheme, _, isURL := strings.Cut(s, "://")
	if u, err := url.Parse(s); isURL && (err != nil || hasPassword(u)) {
		// The text is not shown: it may hold the password.
		return &tomlfile.Fault{Message: "is not a URL without a password", Hint: "use a key or a credential helper of git"}
	}
	switch {
	case s == "":
		return fault("it is empty")
	case s[0] == '-':
		return fault("it begins with '-'")
	case strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f }):
		return fault("it holds a space or a control character")
	case s[0] == '/':
		if path.Clean(s) != s {
			return fault("the path is not in its shortest form")
		}
		return nil
	case isURL:
		return repositoryURL(scheme, s, fault)
	case helperExpr.MatchString(s):
		return fault("transports with :: run programs")
	}
	host, rest, ok := strings.Cut(s, ":")
	if strings.HasPrefix(s, "[") || strings.Contains(host, "@[") {
		i := strings.Index(s, "]:")
		if ok = i >= 0; ok {
			host, rest = s[:i+1], s[i+2:]
		}
	}
	if !ok || rest == "" || rest[0] == '-' || !gitHostExpr.MatchString(host) {
		return fault("it has none of the forms that git is given here")
	}
	return nil
}

func repositoryURL(scheme, s string, fault func(string) error) error {
	u, err := url.Parse(s)
	switch {
	case scheme != "ssh" && scheme != "https":
		return fault(fmt.Sprintf("%s is not one of ssh and https", scheme))
	case err != nil || u.Hostname() == "" || strings.Trim(u.Path, "/") == "":
		return fault("it has no host or no path")
	case !gitHostExpr.MatchString(u.Hostname()) && !strings.Contains(u.Hostname(), ":"):
		return fault("its host is wrong")
	case u.User != nil && !gitHostExpr.MatchString(u.User.Username()+"@host"):
		return fault("its user name is wrong")
	}
	return nil
}

func hasPassword(u *url.URL) bool {
	_, has := u.User.Password()
	return has
}

// gitRef is the rule for a branch, a tag or a commit.
func gitRef(s string) error {
	wrong := s == "" || s == "@" || s[0] == '-' || s[0] == '/' || strings.HasSuffix(s, "/") || strings.HasSuffix(s, ".") ||
		strings.Contains(s, "..") || strings.Contains(s, "//") || strings.Contains(s, "@{") ||
		strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune(`~^:?*[\`, r) })
	for part := range strings.SplitSeq(s, "/") {
		wrong = wrong || strings.HasPrefix(part, ".") || strings.HasSuffix(part, ".lock")
	}
	if wrong {
		return &tomlfile.Fault{
			Message: fmt.Sprintf("%q is not a branch, a tag or a commit", s),
			Hint:    "leave it out for the branch that the repository has as its own",
		}
	}
	return nil
}

// absolute is the rule for a path that must be absolute and in its shortest
// form.
func absolute(s string) error {
	switch {
	case strings.ContainsFunc(s, isControl):
		return fmt.Errorf("%q holds a control character", s)
	case !path.IsAbs(s):
		return &tomlfile.Fault{Message: fmt.Sprintf("%q is not an absolute path", s), Hint: "begin it with '/'"}
	case path.Clean(s) != s:
		return &tomlfile.Fault{Message: fmt.Sprintf("%q is not in its shortest form", s), Hint: fmt.Sprintf("did you mean %q?", path.Clean(s))}
	}
	return nil
}

// belowRoot is absolute for a path that is not the root itself.
func belowRoot(s string) error {
	if s == "/" {
		return errors.New("must not be the root of the container")
	}
	return absolute(s)
}

// relative is the rule for a path inside another folder.
func relative(s string) error {
	switch {
	case strings.ContainsFunc(s, isControl):
		return fmt.Errorf("%q holds a control character", s)
	case s == "" || path.IsAbs(s) || s[0] == '-' || slices.Contains(strings.Split(s, "/"), ".."):
		return &tomlfile.Fault{Message: fmt.Sprintf("%q is not a path inside the repository", s), Hint: "write it without '/' in front and without '..'"}
	case path.Clean(s) != s || s == ".":
		return &tomlfile.Fault{Message: fmt.Sprintf("%q is not in its shortest form", s), Hint: "leave out what changes nothing"}
	}
	return nil
}

// container checks step 3.
func (c *checker) container() {
	ct := c.app.Container
	if c.doc.Has("container.port") && c.known("container.port") && ct.Port == 0 {
		c.fail("container.port", "", "0 is not a port between 1 and 65535")
	}
	c.protocol()
	const most = 64 // replicas on one host
	if n := ct.Replicas; c.known("container.replicas") && (n < 1 || n > most) {
		c.fail("container.replicas", "that many run on each host", "must be between 1 and %d, and is %d", most, n)
	}
	if c.doc.Has("container.command") {
		c.argv("container.command", ct.Command)
	}
	c.env()
	c.volumes()
	const least = 6 << 20 // what engines accept
	if c.doc.Has("container.memory") && c.known("container.memory") && ct.Memory < least {
		c.fail("container.memory", "", "must be 6m or more")
	}
	if c.doc.Has("container.cpus") && c.known("container.cpus") && ct.CPUs <= 0 {
		c.fail("container.cpus", "leave it out for no limit", "must be above 0")
	}
	c.notNegative("container.stop_grace", ct.StopGrace)
}

// env checks the environment of the container, open and secret.
func (c *checker) env() {
	const hint = "letters, digits and '_', not beginning with a digit"
	for _, table := range []string{"container.env", "container.secrets"} {
		for _, name := range c.doc.Keys(table) {
			if !envExpr.MatchString(name) {
				c.failName(tomlfile.Join(table, name), hint, "%q is not a name for an environment variable", name)
			}
		}
	}
	for _, name := range c.doc.Keys("container.env") {
		c.text(tomlfile.Join("container.env", name), c.app.Container.Env[name], noNUL)
	}
	for _, name := range c.doc.Keys("container.secrets") {
		key := tomlfile.Join("container.secrets", name)
		s := c.app.Container.Secrets[name]
		c.secret(key, &s)
		if c.doc.Has(tomlfile.Join("container.env", name)) {
			c.failName(key, "keep one of the two", "stands in container.env as well")
		}
	}
}

func (c *checker) volumes() {
	targets := map[string]bool{}
	for i, v := range c.app.Container.Volumes {
		key := tomlfile.Index("container.volumes", i)
		if !c.known(key) {
			continue
		}
		if path.IsAbs(v.Source) {
			c.failErr(key, absolute(v.Source))
		} else {
			c.failErr(key, matching(volumeExpr, "a name for a volume", "letters, digits, '_', '.' and '-', or an absolute path on the host")(v.Source))
		}
		c.failErr(key, belowRoot(v.Target))
		switch {
		case targets[v.Target]:
			c.fail(key, "", "there is another volume at %s", v.Target)
		case c.app.Code != nil && c.app.Code.Path == v.Target:
			c.fail(key, "the code is there; use a folder below it, or another one", "hides code.path")
		}
		targets[v.Target] = true
	}
}
