package source

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/teal-deploy/teal/plugins"
)

// Resolve returns the commit that the app's ref names now: 40 hexadecimal
// digits, or 64. A branch, a tag, annotated or not, and a full name such as
// refs/heads/main are asked for at the git server, by h and the operator's
// agent when via is host, else from here, where h may be nil. A whole commit
// id is returned as it is.
//
// An error is a *plugins.Error: NotFound for a repository or ref that does not
// exist, with the nearest names; Invalid for a name that is a branch and a
// tag; otherwise as for Fetch.
func (s *Source) Resolve(ctx context.Context, h plugins.Host) (string, error) {
	if wholeCommit.MatchString(s.code.Ref) {
		return s.code.Ref, nil
	}
	ctx, cancel := s.limit(ctx)
	defer cancel()
	var r runner = here{}
	if s.code.Via == viaHost {
		r = h
	}
	refs, err := s.list(ctx, r, s.code.Ref)
	if err == nil {
		var commit string
		if commit, err = pick(refs, s.code.Ref); err == nil && commit == "" {
			err = s.unknownRef(ctx, r)
		}
		if err == nil {
			return commit, nil
		}
	}
	return "", s.failure(ctx, r.String(), fmt.Sprintf("resolve %s of %s", s.code.Ref, s.repository), err)
}

// list asks the git server for the refs of a name, or for all.
func (s *Source) list(ctx context.Context, r runner, ref string) (map[string]string, error) {
	var out bytes.Buffer
	if err := s.ask(ctx, r, s.repository, listScript, &out, s.repository.address, ref); err != nil {
		return nil, err
	}
	refs := map[string]string{}
	for line := range strings.Lines(out.String()) {
		if commit, name, ok := strings.Cut(strings.TrimSpace(line), "\t"); ok && wholeCommit.MatchString(commit) {
			refs[name] = commit
		}
	}
	return refs, nil
}

// pick chooses the commit of ref; "" when there is none.
func pick(refs map[string]string, ref string) (string, error) {
	peeled := func(name string) string { return cmp.Or(refs[name+"^{}"], refs[name]) }
	if strings.HasPrefix(ref, "refs/") || ref == "HEAD" {
		return peeled(ref), nil
	}
	branch, tag := peeled("refs/heads/"+ref), peeled("refs/tags/"+ref)
	if branch != "" && tag != "" && branch != tag {
		return "", &plugins.Error{Kind: plugins.Invalid, Err: fmt.Errorf(
			"%s is a branch and a tag: write refs/heads/%s or refs/tags/%s", ref, ref, ref)}
	}
	return cmp.Or(branch, tag), nil
}

var partOfCommit = regexp.MustCompile(`^[0-9a-f]{7,63}$`)

// unknownRef says what the ref may have been meant to be.
func (s *Source) unknownRef(ctx context.Context, r runner) error {
	if partOfCommit.MatchString(s.code.Ref) {
		return &plugins.Error{Kind: plugins.NotFound, Err: errors.New(
			"no branch or tag has this name, and a git server finds a commit only by its whole id of 40 digits")}
	}
	text := "there is no such branch or tag"
	refs, err := s.list(ctx, r, "")
	if err != nil {
		return err
	}
	var names []string
	for name := range refs {
		name = strings.TrimPrefix(strings.TrimPrefix(name, "refs/heads/"), "refs/tags/")
		names = append(names, strings.TrimSuffix(name, "^{}"))
	}
	switch near := nearest(s.code.Ref, names); {
	case len(names) == 0:
		text = "the repository is empty"
	case len(near) > 0:
		text += "; the nearest: " + strings.Join(near, ", ")
	}
	return &plugins.Error{Kind: plugins.NotFound, Err: errors.New(text)}
}

// nearest returns at most three names that are like ref, the best first.
func nearest(ref string, names []string) []string {
	slices.Sort(names)
	names = slices.Compact(names)
	limit := max(2, len(ref)/3)
	names = slices.DeleteFunc(names, func(name string) bool {
		return distance(ref, name) > limit && !strings.Contains(name, ref)
	})
	slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(distance(ref, a), distance(ref, b)) })
	return names[:min(3, len(names))]
}

// distance is the number of characters to insert, delete or replace.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
