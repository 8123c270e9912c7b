// Package inventory answers where: the hosts of a file, their groups,
// variables and SSH settings, and the patterns that select among them.
package inventory

// A Host is one server as the inventory describes it, with everything that
// groups and defaults add already merged in.
type Host struct {
	Name    string            // as written, ranges expanded; unique
	Address string            // what to connect to; Name when nothing else is said
	Groups  []string          // all groups that hold it, also through children, sorted
	Vars    map[string]string // values as text
	SSH     SSH
}

// SSH says how a host is reached. A zero value leaves the answer to the
// user's OpenSSH configuration.
type SSH struct {
	User       string
	Port       uint16
	Identity   []string // private key files, ~ not expanded
	Jump       string   // a comma-separated chain, as ProxyJump
	Become     string   // "sudo" or ""
	KnownHosts []string // files, ~ not expanded
	HostKeys   string   // "" or "strict", or "accept-new"
}
