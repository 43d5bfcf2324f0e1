package demo

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/quadrille-go/quadrille/internal/localrun"
)

// Reset empties the stack, whose services must not run. Private servers are started without their
// data. Deleting the virtual host instead does not work: a quorum queue that is declared again soon
// afterwards conflicts with the remains of the old one. On given servers the databases and the
// virtual host are dropped.
func (s *Stack) Reset(ctx context.Context) error {
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.load(); err != nil {
		return err
	}
	s.stopServices(ctx)
	if err := localrun.Stop(s.serverDir()); err != nil {
		return err
	}
	if err := os.RemoveAll(s.serverDir()); err != nil {
		return fmt.Errorf("reset: %w", err)
	}
	if s.servers, err = localrun.Start(ctx, localrun.Options{Dir: s.serverDir(), Log: s.Log,
		Detached: s.Detached}); err != nil {
		return err
	}
	if !s.servers.Given {
		return nil
	}
	if s.logins, err = loadLogins(s); err != nil {
		return err
	}
	return s.logins.dropAll(ctx)
}

// settings returns the settings with which other programs can use the stack, in the order in which
// they are written. The address of a service is one of them if this up starts it, or if it runs, or
// if it is left out, because somebody else starts it there.
func (s *Stack) settings() [][2]string {
	serves := func(name string) bool { return !s.Servers || s.processes.Alive(name) }
	list := [][2]string{{"QUADRILLE_AMQP_URL", s.logins.operatorURL()},
		{"QUADRILLE_MANAGEMENT_URL", s.servers.ManagementURL}}
	if serves(simulators) {
		list = append(list, [2]string{"QUADRILLE_SIMULATORS_URL", s.SimulatorsURL()})
	}
	for _, service := range demoServices() {
		prefix := "QUADRILLE_" + strings.ToUpper(service.Name) + "_"
		var replicas []string
		for i := 1; i <= s.Replicas; i++ {
			replicas = append(replicas, s.URL(service.Name, i))
		}
		if serves(service.Name + "-1") {
			list = append(list, [2]string{prefix + "URL", s.URL(service.Name, 1)},
				[2]string{prefix + "URLS", strings.Join(replicas, ",")})
		}
		list = append(list, [2]string{prefix + "AMQP_URL", s.logins.amqpURL(service.Name)},
			[2]string{prefix + "DATABASE_URL", s.logins.databaseURL(service.Name)})
	}
	for _, name := range s.Databases {
		prefix := "QUADRILLE_" + strings.ToUpper(name) + "_"
		list = append(list, [2]string{prefix + "AMQP_URL", s.logins.amqpURL(name)},
			[2]string{prefix + "DATABASE_URL", s.logins.databaseURL(name)})
	}
	return list
}

// writeEnv writes the settings in shell syntax, readable by the owner only.
func (s *Stack) writeEnv() error {
	var b strings.Builder
	for _, pair := range s.settings() {
		fmt.Fprintf(&b, "export %s='%s'\n", pair[0], pair[1])
	}
	if err := localrun.WriteFile(filepath.Join(s.dir(), "env"), b.String()); err != nil {
		return err
	}
	return s.processes.Save() // with the ports that settings chose
}

// writePIDs writes a line "name pid" for each process, including the servers.
func (s *Stack) writePIDs() error {
	var b strings.Builder
	for _, name := range []string{"rabbitmq", "postgres"} {
		if pid := s.servers.PIDs[name]; pid != 0 {
			fmt.Fprintf(&b, "%s %d\n", name, pid)
		}
	}
	for _, name := range s.started() {
		fmt.Fprintf(&b, "%s %d\n", name, s.processes.PID(name))
	}
	return localrun.WriteFile(filepath.Join(s.dir(), "pids"), b.String())
}
