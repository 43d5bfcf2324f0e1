package pg

import (
	"strings"
	"syscall"
)

const tcpUserTimeout = 0x12 // TCP_USER_TIMEOUT, in milliseconds; package syscall has no name for it

// setUserTimeout makes the kernel close a connection whose peer acknowledges nothing.
func setUserTimeout(network, _ string, raw syscall.RawConn) error {
	if !strings.HasPrefix(network, "tcp") { // a Unix socket has no such option
		return nil
	}
	var failed error
	err := raw.Control(func(fd uintptr) {
		failed = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout,
			int(unacknowledgedTimeout.Milliseconds()))
	})
	if err != nil {
		return err
	}
	return failed
}
