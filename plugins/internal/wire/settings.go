package wire

import (
	"bytes"
	"encoding/json"

	"github.com/teal-deploy/teal/plugins"
)

// MarshalSettings returns settings as a JSON object; nil is the empty one.
func MarshalSettings(settings map[string]any) ([]byte, error) {
	if settings == nil {
		return []byte("{}"), nil
	}
	text, err := json.Marshal(settings)
	if err != nil {
		return nil, &plugins.SettingError{Err: err}
	}
	return text, nil
}

// unmarshalSettings is the reverse of MarshalSettings: a number without a
// fraction is an int64, any other a float64.
func unmarshalSettings(text []byte) (map[string]any, error) {
	settings := map[string]any{}
	if len(text) == 0 {
		return settings, nil
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&settings); err != nil {
		return nil, &plugins.SettingError{Err: err}
	}
	for k, v := range settings {
		settings[k] = numbers(v)
	}
	return settings, nil
}

// numbers replaces the numbers in v, as JSON has them, by those of Go.
func numbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		f, _ := v.Float64() // out of range: an infinity, which no check takes
		return f
	case []any:
		for i := range v {
			v[i] = numbers(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = numbers(v[k])
		}
	}
	return v
}
