package orchestrator

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
)

// A redactor blacks secret values out of what people and journals see.
type redactor struct{ replacer *strings.Replacer }

// minSecret is the length below which a value is not looked for: blacking out
// every "1" would hide the text and not the secret.
const minSecret = 4

func newRedactor(values []string) redactor {
	var pairs []string
	values = slices.Clone(values)
	slices.SortFunc(values, func(a, b string) int { return len(b) - len(a) }) // the longest first
	for _, v := range values {
		// A value of several lines shows up line by line in what commands print.
		for _, line := range append([]string{v}, strings.Split(v, "\n")...) {
			if line = strings.TrimSpace(line); len(line) >= minSecret {
				pairs = append(pairs, line, "[redacted]")
			}
		}
	}
	if pairs == nil {
		return redactor{}
	}
	return redactor{strings.NewReplacer(pairs...)}
}

func (r redactor) text(s string) string {
	if r.replacer == nil {
		return s
	}
	return r.replacer.Replace(s)
}

// err returns an error with the same chain whose text holds no secret.
func (r redactor) err(err error) error {
	if err == nil || r.replacer == nil {
		return err
	}
	if text := r.text(err.Error()); text != err.Error() {
		return &redactedError{text: text, err: err}
	}
	return err
}

type redactedError struct {
	text string
	err  error
}

func (e *redactedError) Error() string { return e.text }

// Is lets kinds and sentinels be matched, but hands out no part of the chain,
// which would hold the secret.
func (e *redactedError) Is(target error) bool { return errors.Is(e.err, target) }

// mark returns a short mark of secret values: it changes when one of them
// does. It is salted with the app's name and cut to three bytes, so that too
// many values share a mark for it to tell any of them.
func mark(app string, secrets map[string]string) string {
	if len(secrets) == 0 {
		return ""
	}
	mac := hmac.New(sha256.New, []byte("teal "+app))
	names := make([]string, 0, len(secrets))
	for n := range secrets {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		_, _ = mac.Write([]byte(n + "\x00" + secrets[n] + "\x00"))
	}
	return hex.EncodeToString(mac.Sum(nil)[:3])
}
