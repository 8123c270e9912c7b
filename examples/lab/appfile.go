//go:build linux

package lab

import (
	"os"
	"strings"

	"github.com/teal-deploy/teal/examples/shop"
)

// AppFile writes the shop's teal.toml for this lab, with its kind of proxy and
// its load balancers, and returns the path. Changes edit its text, one after
// the other; Set and Speak return such changes, and nil is none.
func (l *Lab) AppFile(changes ...func(string) string) (string, error) {
	text, err := shop.AppFile(l.Registry().String(), l.RepositoryURL(shopRepository))
	if err != nil {
		return "", err
	}
	if l.config.Proxy == HAProxy {
		text = Set("proxy.type", `"haproxy"`)(text)
	}
	if len(l.balancers) > 0 {
		text = Set("proxy.hosts", `"lb"`)(text)
	}
	for _, change := range changes {
		if change != nil {
			text = change(text)
		}
	}
	path := l.path("teal.toml")
	return path, os.WriteFile(path, []byte(text), 0o600)
}

// Set returns a change of an app file that gives a key a value, in TOML: "app",
// or "table.key". The key, and its table, may be new; an empty value takes the
// key away. It knows files like the shop's, which keep to simple tables.
func Set(key, value string) func(string) string {
	return func(text string) string {
		table, name, inTable := strings.Cut(key, ".")
		if !inTable {
			table, name = "", key
		}
		lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
		from, to := section(lines, table)
		if from < 0 {
			lines = append(lines, "", "["+table+"]")
			from, to = len(lines), len(lines)
		}
		at, end := assignment(lines[from:to], name)
		var line []string
		if value != "" {
			line = []string{name + " = " + value}
		}
		lines = append(lines[:from+at:from+at], append(line, lines[from+end:]...)...)
		return strings.Join(lines, "\n") + "\n"
	}
}

// section returns the lines of a table without its header; "" is what stands
// before the first. There is none when from is negative.
func section(lines []string, table string) (from, to int) {
	from = -1
	if table == "" {
		from = 0
	}
	for i, line := range lines {
		switch {
		case !strings.HasPrefix(line, "["):
		case from >= 0:
			return from, i
		case line == "["+table+"]":
			from = i + 1
		}
	}
	return from, len(lines)
}

// assignment returns the lines that give a key its value, which may be a list
// over several; without such a key it returns twice the place for it, which is
// the first.
func assignment(lines []string, name string) (from, to int) {
	for i, line := range lines {
		left, value, ok := strings.Cut(line, "=")
		if !ok || strings.TrimSpace(left) != name {
			continue
		}
		if strings.TrimSpace(value) != "[" {
			return i, i + 1
		}
		for end := i + 1; end < len(lines); end++ {
			if lines[end] == "]" {
				return i, end + 1
			}
		}
	}
	return 0, 0
}

// Speak returns a change of the shop's app file that has it speak a protocol:
// http, grpc or tcp. A test of the page makes place for one of the port.
func Speak(protocol string) func(string) string {
	return func(text string) string {
		text = Set("container.protocol", `"`+protocol+`"`)(text)
		text = Set("container.env", `{ SHOP_PROTOCOL = "`+protocol+`" }`)(text)
		if protocol == "http" {
			return text
		}
		text = Set("test.checks", `[{ tcp = 8080 }]`)(text)
		return Set("proxy.verify", "")(text)
	}
}
