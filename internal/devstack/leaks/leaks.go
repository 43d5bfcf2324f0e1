// Package leaks looks for goroutines that tests have leaked. It knows those that belong to the
// shared servers: the first test process of all starts them, and they outlive it.
package leaks

import (
	"fmt"
	"os"
	"time"

	"go.uber.org/goleak"
)

// patience is how long goroutines have to end. That of goleak, half a second, is too short for one
// that waits for a server which a busy machine does not let answer.
const patience = 30 * time.Second

// known are the goroutines of package devstack.
func known() []goleak.Option {
	return []goleak.Option{
		goleak.IgnoreAnyFunction("github.com/quadrille-go/quadrille/internal/devstack.reap"),
		goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), // of the management API
		goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"),
	}
}

// Find returns an error that shows the goroutines which are left.
func Find() error {
	for deadline := time.Now().Add(patience); ; {
		err := goleak.Find(known()...)
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

// Main runs the tests of a package and ends the process: as one that failed, when a goroutine is
// left.
func Main(m interface{ Run() int }) {
	code := m.Run()
	if code == 0 {
		if err := Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}
