// Package leaks finds goroutines that tests have leaked. It ignores those of package localrun,
// which belong to the shared servers: these outlive the test process that has started them.
package leaks

import (
	"fmt"
	"os"
	"time"

	"go.uber.org/goleak"
)

// findTimeout is how long goroutines may take to end. The time-out of goleak, half a second, is too
// short for a goroutine that waits for a server on a busy machine.
const findTimeout = 30 * time.Second

// known returns options that ignore the goroutines of package localrun.
func known() []goleak.Option {
	return []goleak.Option{
		goleak.IgnoreAnyFunction("github.com/quadrille-go/quadrille/internal/localrun.reap"),
		// a connection to the management API
		goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"),
		goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"),
	}
}

// Find returns an error with the stacks of the leaked goroutines, or nil.
func Find() error {
	for deadline := time.Now().Add(findTimeout); ; {
		err := goleak.Find(known()...)
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

// Main runs the tests of a package and exits. It exits with code 1 if a goroutine has leaked.
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
