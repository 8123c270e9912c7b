package plugins

// A Versioner says which version of the plugin this is, for people and for a
// project's lock file. Of a runtime that is none, teal tells the version of the
// program's Go module, as go build has recorded it.
type Versioner interface {
	Version() string
}
