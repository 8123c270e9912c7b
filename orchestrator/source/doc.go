// Package source brings the code of a release to a host: step 2.
//
// A [Source] resolves the app's ref to one commit, once for a deployment, and
// writes the tree of that commit on every host, byte for byte: attributes that
// make `git archive` leave files out are overruled, every file carries the
// time of the commit, and a folder counts as complete only after a rename.
//
// The host's own git fetches into a bare mirror beside the app's releases, so
// that only what changed travels, and no more history than the git server
// allows to leave out. With via = "controller" the mirror lies in the
// operator's cache, and hosts get an archive: they need no git, no access and
// no more than sh, tar and sha256sum.
//
// The rule: nothing of the operator stays on a host. Logins come from the
// operator's agent for the length of one command, or do not happen; the git
// server's host key is the operator's knowledge, lent in a private file that
// is removed with the command. Commits are verified here, on the commit object
// itself, since the hosts have neither the operator's keys nor their trust.
//
// git is driven as a program, on either side: it honours the configuration,
// proxies and protocols that operators have already, at none of the size of a
// second implementation in Go.
package source
