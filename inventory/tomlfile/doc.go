// Package tomlfile reads a TOML file into Go values and reports everything
// that is wrong with it at once, each problem with its line, its column and
// the line itself.
//
// The syntax is read by github.com/BurntSushi/toml, whose only owner this
// package is: it follows the specification closely and names the position of
// a syntax error. It stops at the first value of a wrong type, though, and
// knows no position of a correct one, which a caller needs to reject a value
// for what it means. So the library reads into a plain tree, a scanner notes
// where every key and value stands, and the typed values are filled in here.
//
// The package knows no key of teal: what a file may hold is the Go type that
// it is decoded into, and a caller reports its own findings with
// Document.Problem. No text of a file reaches a message or a snippet with its
// control characters, and a value that a caller names secret is masked.
package tomlfile
