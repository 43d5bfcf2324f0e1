package postgres

import "syscall"

const tcpUserTimeout = 0x12 // TCP_USER_TIMEOUT, in milliseconds; package syscall does not name it

// bound cuts a connection whose peer acknowledges nothing.
func bound(_, _ string, raw syscall.RawConn) error {
	var failed error
	err := raw.Control(func(fd uintptr) {
		failed = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(unacknowledged.Milliseconds()))
	})
	if err != nil {
		return err
	}
	return failed
}
