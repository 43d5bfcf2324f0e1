//go:build !linux

package pg

import "syscall"

// setUserTimeout does nothing: outside Linux only keep-alives detect that a peer has vanished.
func setUserTimeout(_, _ string, _ syscall.RawConn) error { return nil }
