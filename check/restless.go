package check

import (
	"slices"
)

// restless reports states from which no state of rest can be reached by what must happen:
// deliveries, deadlines and the commands that are not optional. Services that answer each other
// without end are such a case. Of an exploration that was stopped only one thing is known: whether
// it met any rest.
func (x *explorer) restless(r *Report) {
	const what = "the choreography does not come to rest"
	if !r.Complete {
		if r.TerminalStates == 0 {
			last := r.States - 1
			r.violated(what+", as far as it was explored", func() []string { return x.way(last) })
		}
		return
	}
	back := make([][]int, len(x.states))
	for _, e := range x.onward {
		back[e.to] = append(back[e.to], e.from)
	}
	rests := make([]bool, len(x.states))
	var todo []int
	for i, s := range x.states {
		if s.rest {
			rests[i] = true
			todo = append(todo, i)
		}
	}
	for len(todo) > 0 {
		at := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, from := range back[at] {
			if !rests[from] {
				rests[from] = true
				todo = append(todo, from)
			}
		}
	}
	for i := range x.states {
		if !rests[i] {
			r.violated(what, func() []string { return slices.Concat(x.way(i), x.loop(i)) })
		}
	}
}

// loop follows what must happen from a state until it comes to a state again. It begins with a line
// that explains it.
func (x *explorer) loop(at int) []string {
	moves := []string{"and from there on, again and again:"}
	met := map[int]bool{}
	for !met[at] {
		met[at] = true
		i := slices.IndexFunc(x.onward, func(e edge) bool { return e.from == at })
		if i < 0 {
			break
		}
		moves = append(moves, x.report(x.onward[i].move))
		at = x.onward[i].to
	}
	return moves
}
