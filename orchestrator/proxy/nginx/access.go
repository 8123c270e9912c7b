package nginx

import (
	"slices"
	"strconv"
	"strings"
)

// An identity is what the kernel knows of a process's rights.
type identity struct {
	known  bool
	uid    int
	groups []int
}

// parseIdentity reads /proc/PID/status.
func parseIdentity(status string) identity {
	var id identity
	for line := range strings.Lines(status) {
		name, values, _ := strings.Cut(line, ":")
		var numbers []int
		for f := range strings.FieldsSeq(values) {
			if n, err := strconv.Atoi(f); err == nil {
				numbers = append(numbers, n)
			}
		}
		switch {
		case name == "Uid" && len(numbers) == 4:
			id.uid, id.known = numbers[1], true
		case name == "Gid" && len(numbers) == 4:
			id.groups = append(id.groups, numbers[1])
		case name == "Groups":
			id.groups = append(id.groups, numbers...)
		}
	}
	return id
}

// A folder is a line of ls -ldn.
type folder struct {
	path     string
	mode     string // drwxr-xr-x, with + at the end when there is more to it
	uid, gid int
}

func parseFolders(text string) []folder {
	var found []folder
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 9 || len(f[0]) < 10 {
			continue
		}
		uid, err := strconv.Atoi(f[2])
		if err != nil {
			continue
		}
		gid, err := strconv.Atoi(f[3])
		if err != nil {
			continue
		}
		_, name, _ := strings.Cut(line, " /")
		found = append(found, folder{path: "/" + strings.TrimSpace(name), mode: f[0], uid: uid, gid: gid})
	}
	return found
}

// closed returns a folder that the workers of nginx may not enter. One with an
// access list is given the benefit of the doubt: the proof after the reload
// will tell.
func (s survey) closed() (folder, bool) {
	if !s.worker.known || s.worker.uid == 0 {
		return folder{}, false
	}
	for _, f := range s.folders {
		bit := f.mode[9]
		switch {
		case strings.HasSuffix(f.mode, "+"):
			continue
		case f.uid == s.worker.uid:
			bit = f.mode[3]
		case slices.Contains(s.worker.groups, f.gid):
			bit = f.mode[6]
		}
		if !strings.ContainsRune("xst", rune(bit)) {
			return f, true
		}
	}
	return folder{}, false
}
