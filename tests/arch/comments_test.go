package arch_test

import "testing"

// commentShare is the least share of comments in percent of the lines of the code that is hard to
// get right. A reader needs the reasons there: what would break, and what was tried.
const commentShare = 15

// hard are the packages and files with such code: the relay, its stream, the leader, the windows
// between two snapshots, and projections.
var hard = []string{"outbox", "outbox/cdc", "internal/pg/leader.go", "internal/pg/window.go",
	"eventstore"}

func TestHardCodeIsExplained(t *testing.T) {
	lines, comments := map[string]int{}, map[string]int{}
	for _, f := range files(t) {
		if f.test() {
			continue
		}
		n := 0
		for _, group := range f.ast.Comments {
			n += f.set.Position(group.End()).Line - f.set.Position(group.Pos()).Line + 1
		}
		for _, name := range []string{f.dir(), f.path} {
			lines[name] += f.lines()
			comments[name] += n
		}
	}
	for _, name := range hard {
		if lines[name] == 0 || 100*comments[name] < commentShare*lines[name] {
			t.Errorf("%s has %d lines with comments in %d, want %d %%: say why the code is as it is", name,
				comments[name], lines[name], commentShare)
		}
	}
}
