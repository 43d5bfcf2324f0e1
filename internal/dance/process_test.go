package dance

import (
	"os/exec"
	"testing"
)

// A process that ended before anybody read when it was started is dead, and stays so.
func TestProcessThatEndedAtOnceIsNotAlive(t *testing.T) {
	command := exec.Command("true")
	if err := command.Run(); err != nil {
		t.Fatal(err)
	}
	pid := command.Process.Pid
	s := &state{Processes: map[string]process{"orders-1": {PID: pid, Started: started(pid)}}}
	if s.alive("orders-1") {
		t.Error("it is taken for alive")
	}
}
