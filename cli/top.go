package cli

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quadrille-go/quadrille/admin"
	"github.com/quadrille-go/quadrille/internal/rabbit"
	"github.com/quadrille-go/quadrille/topology"
)

// The bounds of top.
const (
	topInterval = 2 * time.Second
	leastTop    = 100 * time.Millisecond
)

// clearScreen moves the cursor of a terminal to the top and deletes what is there.
const clearScreen = "\x1b[H\x1b[2J"

// activity is what a service does, all of its replicas together.
type activity struct {
	Service   string  `json:"service"`
	Replicas  int     `json:"replicas"`      // that answer
	Published float64 `json:"published_sec"` // a second, since the last look; 0 in the first one
	Handled   float64 `json:"handled_sec"`
	Failed    float64 `json:"failed_sec"`
	// LagSeconds is the mean age of the events that were handled since the last look.
	LagSeconds float64         `json:"lag_seconds"`
	Queue      *int64          `json:"queue,omitempty"` // messages at the broker; nil: not known
	Waiting    admin.Backlog   `json:"waiting"`
	Breakers   []admin.Breaker `json:"breakers"` // those that are not closed
	Problems   []string        `json:"problems"`
}

// look is one look at all services.
type look struct {
	At       time.Time       `json:"at"`
	Services []activity      `json:"services"`
	Missing  []admin.Missing `json:"missing"`
}

func topCommand(e *Env) *cobra.Command {
	every, once := topInterval, false
	c := &cobra.Command{
		Use: "top", Short: "Show what each service does and what waits, again and again until Ctrl-C",
		Long: "Show for each service, all replicas together: how many events it publishes and handles " +
			"a second, how old they are when\nthey are handled, and what waits in its queue, its outbox " +
			"and its database. Counts of what waits end at 10,000.\nWith -o json each line is a look.",
		Example: "  " + e.App.Name + " top\n  " + e.App.Name + " top --once",
		RunE: func(c *cobra.Command, _ []string) error {
			if every < leastTop {
				return usage(fmt.Errorf("--every %s: must be at least %s", every, leastTop))
			}
			return e.top(c.Context(), every, once)
		},
	}
	c.Flags().DurationVar(&every, "every", topInterval, "the time between two looks")
	c.Flags().BoolVar(&once, "once", false, "two looks, of which the second is printed, and no more")
	return c
}

func (e *Env) top(ctx context.Context, every time.Duration, once bool) error {
	before := map[string]admin.Load{}
	var last time.Time
	for n := 0; ; n++ {
		loads, missing := e.Client().Loads(ctx)
		if ctx.Err() != nil {
			return nil // Ctrl-C is how it ends
		}
		now := time.Now()
		all := look{now, e.activities(loads, before, now.Sub(last)), missing}
		all.addDepths(ctx, e)
		if !once || n == 1 {
			if err := e.printLook(all, once); err != nil || once {
				return e.partial(missing, err)
			}
		}
		last, before = now, map[string]admin.Load{}
		for _, l := range loads {
			before[l.Service+" "+l.Replica] = l
		}
		if !pause(ctx, every) {
			return nil
		}
	}
}

// activities joins the replicas of each service, in the order of the topology.
func (e *Env) activities(loads []admin.Load, before map[string]admin.Load,
	passed time.Duration) []activity {
	all := map[string]*activity{}
	lagged, lag := map[string]float64{}, map[string]float64{}
	for _, l := range loads {
		a := all[l.Service]
		if a == nil {
			a = &activity{Service: l.Service, Breakers: []admin.Breaker{}, Problems: []string{}}
			all[l.Service] = a
		}
		a.Replicas++
		a.Waiting = l.Waiting // of one database
		if l.Problem != "" {
			a.Problems = append(a.Problems, l.Replica+": "+l.Problem)
		}
		for _, b := range l.Breakers {
			b.Service = l.Service
			a.Breakers = append(a.Breakers, b)
		}
		was, known := before[l.Service+" "+l.Replica]
		if !known || was.Handled > l.Handled || was.Published > l.Published {
			continue // it has just started
		}
		a.Published += float64(l.Published-was.Published) / passed.Seconds()
		a.Handled += float64(l.Handled-was.Handled) / passed.Seconds()
		a.Failed += float64(l.Failed-was.Failed) / passed.Seconds()
		lagged[l.Service] += float64(l.Lagged - was.Lagged)
		lag[l.Service] += l.LagSeconds - was.LagSeconds
	}
	list := []activity{}
	for _, service := range e.App.services() {
		if a := all[service]; a != nil {
			a.Breakers = slices.DeleteFunc(admin.SumBreakers(a.Breakers), func(b admin.Breaker) bool {
				return b.State == admin.Closed
			})
			if lagged[service] > 0 {
				a.LagSeconds = lag[service] / lagged[service]
			}
			list = append(list, *a)
		}
	}
	return list
}

// addDepths adds the messages in the queues, if the management API of the broker is known and
// answers.
func (l *look) addDepths(ctx context.Context, e *Env) {
	manage, broker, err := e.brokerSettings()
	if err != nil {
		return
	}
	depths, err := rabbit.Depths(ctx, manage, broker)
	for i := range l.Services {
		if depth, ok := depths[topology.QueueOf(l.Services[i].Service)]; ok && err == nil {
			l.Services[i].Queue = &depth
		}
	}
}

func (e *Env) printLook(l look, once bool) error {
	if e.Output == "json" {
		return e.printLine(l)
	}
	if out, ok := e.Out.(*os.File); ok && !once && isTerminal(out) {
		if _, err := out.WriteString(clearScreen); err != nil {
			return err
		}
	}
	t := NewText(e.Out)
	t.Printf("%s at %s\n\n", e.App.Topology.Name, l.At)
	t.Table("SERVICE\tREPLICAS\tPUBLISHED/S\tHANDLED/S\tLAG\tQUEUE\tOUTBOX\tRETRIES\tCALLS\tOVERDUE\t"+
		"HELD\tPARKED\tBREAKERS", func(row func(...any)) {
		for _, a := range l.Services {
			w, queue := a.Waiting, "-"
			if a.Queue != nil {
				queue = fmt.Sprint(*a.Queue)
			}
			row(a.Service, a.Replicas, rate(a.Published), rate(a.Handled), seconds(a.LagSeconds), queue,
				aged(w.Unpublished, w.UnpublishedSeconds), w.Retries+w.OtherRelease, w.Calls, w.Overdue,
				w.Held, aged(w.Parked, w.ParkedSeconds), states(a.Breakers))
		}
	})
	for _, a := range l.Services {
		for _, problem := range a.Problems {
			t.Printf("%s: %s\n", a.Service, problem)
		}
	}
	if !once {
		for _, m := range l.Missing {
			t.Printf("%s does not answer: %s\n", m.Service, m.Error)
		}
	}
	return t.err
}

// isTerminal reports whether a file is a terminal.
func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

func rate(perSecond float64) string { return fmt.Sprintf("%.1f", perSecond) }

// seconds is a duration in seconds for a person.
func seconds(s float64) string {
	if s == 0 {
		return "-"
	}
	return age(time.Duration(s * float64(time.Second)))
}

// aged is a number with the age of the oldest, if there is one.
func aged(n int64, oldest float64) string {
	if n == 0 {
		return "0"
	}
	return fmt.Sprintf("%d, %s", n, seconds(oldest))
}

// states are the breakers that are not closed.
func states(breakers []admin.Breaker) string {
	var all []string
	for _, b := range breakers {
		all = append(all, b.Name+" "+string(b.State))
	}
	return cmp.Or(strings.Join(all, ", "), "-")
}
