package boot

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/quadrille-go/quadrille/internal/servertest"
	"github.com/quadrille-go/quadrille/internal/web/webtest"
	"github.com/quadrille-go/quadrille/quadrilletest"
)

// handOver opens a socket and returns its address and a descriptor that nothing else owns.
func handOver(t *testing.T, address string) (string, string) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	fd, err := syscall.Dup(int(file.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	return l.Addr().String(), strconv.Itoa(fd)
}

// A service and the simulators serve on the socket that their parent has opened, while nobody could
// open the address anew.
func TestASocketThatIsHandedOverIsServed(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(ctx context.Context, address, fd string) error{
		"service": func(ctx context.Context, address, fd string) error {
			return runPlain(ctx, settingsOf(map[string]string{"QUADRILLE_PLAIN_URL": "http://" + address,
				"QUADRILLE_LISTEN_FD": fd}))
		},
		"simulators": func(ctx context.Context, address, fd string) error {
			return simulators(ctx, nil, lookupIn(map[string]string{"QUADRILLE_SIMULATORS_LISTEN": address,
				"QUADRILLE_LISTEN_FD": fd}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address, fd := handOver(t, servertest.Addresses(t, 1)[0])
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			done := make(chan error, 1)
			go func() {
				err := start(ctx, address, fd)
				stop() // the client below waits no longer
				done <- err
			}()
			client := &webtest.Service{TB: t, URL: "http://" + address}
			a, err := client.Try(ctx, "GET", "/healthz", "") // once: it waits until it is accepted
			if err != nil || a.Status != http.StatusOK {
				t.Errorf("%+v, %v", a, err)
			}
			http.DefaultClient.CloseIdleConnections()
			stop()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

// What is handed over must be a socket at the address of the settings, which others may reach only
// with tokens.
func TestAWrongDescriptorIsNamed(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), quadrilletest.Timeout)
	defer cancel()
	elsewhere, fd := handOver(t, "127.0.0.1:0")
	for want, env := range map[string]map[string]string{
		`"x" is no descriptor`:                {"QUADRILLE_LISTEN_FD": "x"},
		`"2" is no descriptor`:                {"QUADRILLE_LISTEN_FD": "2"},
		"descriptor 9999 is no listening":     {"QUADRILLE_LISTEN_FD": "9999"},
		"listens on " + elsewhere + ", want ": {"QUADRILLE_LISTEN_FD": fd},
	} {
		err := runPlain(ctx, settingsOf(env))
		if text := fmt.Sprint(err); !strings.Contains(text, "QUADRILLE_LISTEN_FD") ||
			!strings.Contains(text, want) {
			t.Errorf("%s, want %q", text, want)
		}
	}
	err := runPlain(ctx, settingsOf(map[string]string{"QUADRILLE_LISTEN_FD": "9999",
		"QUADRILLE_PLAIN_LISTEN": "0.0.0.0:1"}))
	if !strings.Contains(fmt.Sprint(err), "without tokens only a loopback") {
		t.Errorf("an address that others can reach: %v", err)
	}
}
