// Package leaks tells tests that look for leaked goroutines which ones belong to the shared servers:
// the first test process of all starts them, and they outlive it.
package leaks

import "go.uber.org/goleak"

// Known are the goroutines of package devstack.
func Known() []goleak.Option {
	return []goleak.Option{
		goleak.IgnoreAnyFunction("github.com/quadrille-go/quadrille/internal/devstack.reap"),
		goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), // of the management API
		goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"),
	}
}
