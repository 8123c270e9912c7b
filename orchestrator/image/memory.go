package image

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// memoryFile is the name of the file that a memory is kept in.
const memoryFile = "known.json"

// maxKnown is how many images, or layers, are remembered before all of them are
// forgotten.
const maxKnown = 2000

// A memory is what was found out about images and need not be found out again:
// all of it follows from the digests that it is kept under. Losing it costs
// time and nothing else, so that no trouble with its file is an error.
type memory struct {
	path string // "": it ends with the process

	mu    sync.Mutex
	known known
}

type known struct {
	Images map[string]string `json:"images"` // by program and id
	Layers map[string]packed `json:"layers"` // by packing and digest of the content
}

func recall(dir string) *memory {
	m := &memory{}
	if dir != "" {
		m.path = filepath.Join(dir, memoryFile)
	}
	m.known = m.read()
	return m
}

func (m *memory) read() known {
	k := known{Images: map[string]string{}, Layers: map[string]packed{}}
	var found known
	if text, err := os.ReadFile(m.path); err != nil || json.Unmarshal(text, &found) != nil {
		return k
	}
	if len(found.Images) < maxKnown {
		maps.Copy(k.Images, found.Images)
	}
	if len(found.Layers) < maxKnown {
		maps.Copy(k.Layers, found.Layers)
	}
	return k
}

// save adds what is known to what others have written meanwhile.
func (m *memory) save() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.path == "" {
		return
	}
	k := m.read()
	maps.Copy(k.Images, m.known.Images)
	maps.Copy(k.Layers, m.known.Layers)
	m.write(k)
}

// write replaces the file.
func (m *memory) write(k known) {
	text, err := json.Marshal(k)
	if err != nil || os.MkdirAll(filepath.Dir(m.path), 0o700) != nil {
		return
	}
	f, err := os.CreateTemp(filepath.Dir(m.path), memoryFile+"-*")
	if err != nil {
		return
	}
	_, err = f.Write(text)
	if closed := f.Close(); err != nil || closed != nil || os.Rename(f.Name(), m.path) != nil {
		_ = os.Remove(f.Name())
	}
}

func (m *memory) image(key string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.known.Images[key]
}

func (m *memory) learnImage(key, digest string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.known.Images[key] = digest
}

func layerKey(diffID v1.Hash) string { return packing() + " " + diffID.String() }

func (m *memory) layer(diffID v1.Hash) (packed, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p, ok := m.known.Layers[layerKey(diffID)]
	return p, ok
}

func (m *memory) learnLayer(diffID v1.Hash, p packed) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.known.Layers[layerKey(diffID)] = p
}

// forgetLayers drops all layers, because what was known of one is wrong.
func (m *memory) forgetLayers() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.known.Layers)
	if m.path != "" {
		m.write(m.known)
	}
}
