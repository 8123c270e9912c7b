module example.com/teal-runtime-process

go 1.26.0

// A real one names a version of teal and has no replace; then: go mod tidy.
require github.com/teal-deploy/teal v0.0.0

replace github.com/teal-deploy/teal => ../../..
