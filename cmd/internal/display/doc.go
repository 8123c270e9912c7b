// Package display renders what a run does and how it ended: a live board on a
// terminal, plain lines, newline-delimited JSON, and the journal, which keeps
// the same JSON on the operator's machine.
//
// A [Renderer] takes the engine's events as they come, from any goroutine, and
// the result once. Nothing here decides anything, and nothing else of teal
// prints. Text that came from a host is never obeyed by the terminal: control
// characters and marks that reorder text are shown as escapes.
//
// The board is drawn by bubbletea. Against mpb, on a simulated deployment to
// 50 hosts in a terminal of 30 lines, it wrote a sixth of the bytes, because it
// sends only the cells that changed, and it survived a resize, where mpb
// stacked copies of its bars. It runs without input: the terminal stays in its
// normal mode, no query is sent to it, and Ctrl-C is a signal for the program.
// One limit shapes the code: lines above the board and the board together must
// fit the screen, so the board leaves some lines free and a few are printed at
// a time.
package display
