package tomlfile

import "maps"

// Overlay returns the document with the table at key laid over its top: its
// tables are merged into those that are there, all other values replace them.
// Tables whose key matches a pattern of whole are replaced, too. The top-level
// table that holds the overlay is taken out. Problems with values that came
// from the overlay name the place where they stand.
func (d *Document) Overlay(key string, whole ...string) *Document {
	out := *d
	out.moved = maps.Clone(d.moved)
	if out.moved == nil {
		out.moved = map[string]string{}
	}
	v, _ := d.lookup(key)
	over, _ := v.(map[string]any)
	m := merger{moved: out.moved, whole: whole}
	base := maps.Clone(d.tree)
	delete(base, split(key)[0].name)
	out.tree = m.merge("", key, base, over)
	return &out
}

// Without returns the document without the top-level key name.
func (d *Document) Without(name string) *Document {
	out := *d
	out.tree = maps.Clone(d.tree)
	delete(out.tree, name)
	return &out
}

type merger struct {
	moved map[string]string
	whole []string
}

// merge returns base with over laid over it; key is where base stands and
// from where over does.
func (m merger) merge(key, from string, base, over map[string]any) map[string]any {
	out := maps.Clone(base)
	for name, value := range over {
		at := Join(key, name)
		below, isTable := value.(map[string]any)
		there, wasTable := out[name].(map[string]any)
		if isTable && wasTable && !m.replaces(at) {
			out[name] = m.merge(at, Join(from, name), there, below)
			continue
		}
		out[name] = value
		m.moved[at] = Join(from, name)
	}
	return out
}

func (m merger) replaces(key string) bool {
	for _, pattern := range m.whole {
		if match(pattern, key) {
			return true
		}
	}
	return false
}

// origin returns where a key stands in the file.
func (d *Document) origin(key string) string {
	if len(d.moved) == 0 {
		return key
	}
	for at := key; at != ""; at = Parent(at) {
		if from, ok := d.moved[at]; ok {
			return from + key[len(at):]
		}
	}
	return key
}
