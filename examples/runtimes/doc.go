// Package runtimes holds runtimes that anybody could have written, from the
// smallest up, and the tests that build them outside of teal's module and use
// them through plugins/loader, as a deployment does.
//
// Hello is the smallest. Each folder is a program of its own: copy one, and
// begin.
package runtimes
