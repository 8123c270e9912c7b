// Package plugintest helps to test a runtime: the conformance test that every
// runtime passes, in process and across the process boundary, and hosts to
// run it against.
package plugintest
