package localrun

import (
	"errors"
	"os"
	"strings"
	"testing"
)

func TestGivenServers(t *testing.T) {
	t.Setenv("QUADRILLE_AMQP_URL", "amqp://a:b@h/")
	t.Setenv("QUADRILLE_POSTGRES_URL", "postgres://a:b@h/d")
	t.Setenv("QUADRILLE_MANAGEMENT_URL", "")
	dir := t.TempDir()
	if _, err := Start(t.Context(), Options{Dir: dir}); err == nil {
		t.Error("a part of the addresses was accepted")
	}
	t.Setenv("QUADRILLE_MANAGEMENT_URL", "http://a:b@h")
	s, err := Start(t.Context(), Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if !s.Given || s.AMQPURL != "amqp://a:b@h/" || len(s.PIDs) != 0 {
		t.Errorf("got %+v", s.PIDs)
	}
	if err := s.KillPostgres(); !errors.Is(err, errGiven) {
		t.Errorf("killed given servers: %v", err)
	}
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("Start has written to the directory: %v %v", entries, err)
	}
}

func TestErrorsHideSecrets(t *testing.T) {
	k := newStack(t.TempDir(), nil)
	k.settings.state = state{PostgresPassword: "hush", AMQPPassword: "silence", Cookie: "crumb"}
	if err := os.WriteFile(k.folder.path("postgres.log"), []byte(strings.Repeat("line\n", 50)+
		"the end: hush\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tail := k.server("postgres").logTail()
	if strings.Contains(tail, "hush") || !strings.Contains(tail, "the end: xxxxx") ||
		strings.Count(tail, "line") != logLines-1 {
		t.Errorf("the tail is %q", tail)
	}
}

func TestNewest(t *testing.T) {
	dir := t.TempDir()
	for _, version := range []string{"9", "15", "14"} {
		if err := os.Mkdir(dir+"/"+version, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if got := newest(dir + "/*"); got != dir+"/15" {
		t.Errorf("newest: %s", got)
	}
	if got := newest(dir + "/none*"); got != "" {
		t.Errorf("newest of none: %s", got)
	}
}
