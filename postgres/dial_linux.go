package postgres

import (
	"strings"
	"syscall"
)

const tcpUserTimeout = 0x12 // TCP_USER_TIMEOUT, in milliseconds; package syscall does not name it

// bound cuts a connection whose peer acknowledges nothing.
func bound(network, _ string, raw syscall.RawConn) error {
	if !strings.HasPrefix(network, "tcp") { // a socket on this machine
		return nil
	}
	var failed error
	err := raw.Control(func(fd uintptr) {
		failed = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout,
			int(unacknowledged.Milliseconds()))
	})
	if err != nil {
		return err
	}
	return failed
}
