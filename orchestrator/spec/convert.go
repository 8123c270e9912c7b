package spec

import (
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"

	"github.com/teal-deploy/teal/inventory/tomlfile"
)

// converters are the values that are written otherwise than an App has them.
func converters() map[string]func(any) (any, error) {
	return map[string]func(any) (any, error){
		"container.memory":        size,
		"container.volumes[]":     volume,
		"proxy.site.listen[]":     listen,
		"rollout.canary[]":        share,
		"rollout.max_failed":      limit,
		"rollout.max_unreachable": limit,
	}
}

// size reads "512m" as bytes.
func size(value any) (any, error) {
	fault := &tomlfile.Fault{Message: "is not a size", Hint: `write it like "512m" or "2g"`}
	text, ok := value.(string)
	if !ok {
		return nil, fault
	}
	fault.Message = fmt.Sprintf("%q is not a size", text)
	digits := strings.TrimRight(strings.ToLower(text), "bkmgt")
	units := map[string]float64{"b": 1, "k": 1 << 10, "kb": 1 << 10, "m": 1 << 20, "mb": 1 << 20, "g": 1 << 30, "gb": 1 << 30, "t": 1 << 40, "tb": 1 << 40}
	unit, ok := units[strings.ToLower(text[len(digits):])]
	if !ok || strings.Trim(digits, "0123456789.") != "" {
		return nil, fault
	}
	n, err := strconv.ParseFloat(digits, 64)
	if err != nil || n*unit >= math.MaxInt64 {
		return nil, fault
	}
	return int64(n * unit), nil
}

// volume reads "source:target" and "source:target:ro".
func volume(value any) (any, error) {
	fault := &tomlfile.Fault{Message: "is not a volume", Hint: `write "name:/path" or "/path/on/host:/path", with :ro behind it when the app shall only read`}
	text, ok := value.(string)
	if !ok {
		return nil, fault
	}
	fault.Message = fmt.Sprintf("%q is not a volume", text)
	parts := strings.Split(text, ":")
	v := Volume{}
	switch {
	case len(parts) == 3 && parts[2] == "ro":
		v.ReadOnly = true
	case len(parts) == 3 && parts[2] == "rw", len(parts) == 2:
	default:
		return nil, fault
	}
	v.Source, v.Target = parts[0], parts[1]
	return v, nil
}

// listen reads 80, "80", ":80", "10.0.0.1:80" and "[::1]:80". A port alone
// gets the unspecified IPv4 address, which stands for all addresses.
func listen(value any) (any, error) {
	fault := &tomlfile.Fault{Message: "is not an address to listen on", Hint: `write a port, as 80, or an address with a port, as "10.0.0.1:80" or "[::1]:80"`}
	var text string
	switch v := value.(type) {
	case int64:
		text = strconv.FormatInt(v, 10)
	case string:
		text = v
	default:
		return nil, fault
	}
	fault.Message = fmt.Sprintf("%q is not an address to listen on", text)
	if port, err := strconv.ParseUint(strings.TrimPrefix(text, ":"), 10, 16); err == nil && port > 0 {
		return netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(port)), nil
	}
	at, err := netip.ParseAddrPort(text)
	if err != nil || at.Port() == 0 || at.Addr().Zone() != "" {
		return nil, fault
	}
	return at, nil
}

// limit reads 2 and "10%".
func limit(value any) (any, error) {
	fault := &tomlfile.Fault{Message: "is not a limit", Hint: `write a number of hosts, as 2, or a percentage, as "10%"`}
	switch v := value.(type) {
	case int64:
		if v >= 0 && v <= math.MaxInt32 {
			return Limit{Count: int(v)}, nil
		}
		fault.Message = fmt.Sprintf("%d is not a limit", v)
	case string:
		fault.Message = fmt.Sprintf("%q is not a limit", v)
		number, percent := strings.CutSuffix(v, "%")
		n, err := strconv.ParseUint(number, 10, 31)
		if err == nil && (!percent || n <= 100) {
			return Limit{Count: int(n), Percent: percent}, nil
		}
	}
	return nil, fault
}

// share reads "5%", a part of the requests that is neither none nor all.
func share(value any) (any, error) {
	fault := &tomlfile.Fault{Message: "is not a share of the requests", Hint: `write "1%" to "99%"`}
	text, ok := value.(string)
	if !ok {
		return nil, fault
	}
	fault.Message = fmt.Sprintf("%q is not a share of the requests", text)
	number, percent := strings.CutSuffix(text, "%")
	n, err := strconv.ParseUint(number, 10, 8)
	if err != nil || !percent || n < 1 || n > 99 {
		return nil, fault
	}
	return int(n), nil
}
