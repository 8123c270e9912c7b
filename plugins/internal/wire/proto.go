package wire

import _ "embed" // runtime.proto

// Proto is the text of runtime.proto.
//
//go:embed runtime.proto
var Proto string
