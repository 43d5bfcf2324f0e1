// Package shell writes programs for tests that start processes.
package shell

import (
	"os"
	"syscall"
	"testing"
)

// Script writes a shell script that can be started at once. No other goroutine starts a process
// meanwhile: that process would have the script open for writing for a moment, and the kernel
// starts no file that anybody writes ("text file busy").
func Script(t testing.TB, path, content string) {
	t.Helper()
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+content+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
}
