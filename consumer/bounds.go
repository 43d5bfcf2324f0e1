package consumer

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"runtime"
	"slices"
	"time"

	"github.com/quadrille-go/quadrille/internal/engine"
	"github.com/quadrille-go/quadrille/internal/inbox"
)

// Retry is the policy for an event, or a call, that fails for a reason of its own. The pauses
// double from First to Longest, and each is jittered between half of it and all of it. The zero
// value of a field means its default.
type Retry struct {
	Attempts int           // before it is parked; default 10
	First    time.Duration // the pause before the second attempt; default 1 s
	Longest  time.Duration // the longest pause; default 5 min
}

// Bounds are the limits of a consumer. The zero value of a field means its default. What is not
// here is a constant with its reason.
type Bounds struct {
	// Lanes is how many transactions run at a time; events of one subject are always in the same lane.
	// More lanes use more processors and connections. Default: two for each processor, at least 4.
	Lanes int
	// BatchMax is how many events one transaction handles at most; default 200.
	BatchMax int
	// Prefetch is the maximum number of unacknowledged deliveries; default 2000.
	Prefetch int
	// PrefetchBytes bounds the bodies of the unacknowledged deliveries, in bytes; one delivery more
	// may be read. Default 64 MiB.
	PrefetchBytes int64
	// HandlerTimeout is how long the transaction of a batch may take, its handlers included. An event
	// whose handler takes longer fails and is retried. Default 1 min.
	HandlerTimeout time.Duration
	// CallWorkers is how many outside calls are under way at a time. Default: 16 for each processor,
	// at least 32, since they wait more than they compute.
	CallWorkers int
	// CallTimeout is how long one outside call may take; default 10 s.
	CallTimeout time.Duration
	// CallPatience is how long an outside call is repeated in any case, however often it fails: a peer
	// may be unreachable for longer than all attempts last, which is no fault of the event. Default 6
	// h.
	CallPatience time.Duration
	// CallHistory is how long an answered call stays in the history of calls; default 14 days.
	CallHistory time.Duration
	// ReceiptHistory is how long the service remembers which events it has handled. An event that is
	// delivered for the first time when it is older than this is parked, since it may have been
	// handled. It must be longer than events may come again: from a broker that was away, and from the
	// outboxes of all publishers by a replay. Default 60 days.
	ReceiptHistory time.Duration
	// RepairHistory is how long the record of redriven and discarded events stays, with the bytes of
	// those that were discarded. Default 90 days.
	RepairHistory time.Duration
	// DatabasePatience is how long an event waits without using an attempt while the database is the
	// cause, such as a table that another session has locked. After that its attempts count. Default
	// 24 h.
	DatabasePatience time.Duration
	// Retry is the policy of handlers that have none of their own; see Handler.With.
	Retry Retry
	// MalformedMessages and MalformedBytes bound the parked messages of one exchange that are no
	// events, or forged ones. Default 1000 messages and 64 MiB.
	MalformedMessages int
	MalformedBytes    int64
	// ShutdownTimeout is how long begun work may take after the context of Run has ended. What is not
	// finished then is rolled back and delivered again. Default 10 s.
	ShutdownTimeout time.Duration
}

// validate returns all faults: a bound that is negative or beyond its limit, or that contradicts
// another.
func (b Bounds) validate() error {
	list := map[string]bound{
		"Lanes": {int64(b.Lanes), maxLanes}, "BatchMax": {int64(b.BatchMax), maxPrefetch},
		"Prefetch":       {int64(b.Prefetch), maxPrefetch},
		"PrefetchBytes":  {b.PrefetchBytes, math.MaxInt64},
		"CallWorkers":    {int64(b.CallWorkers), maxCallWorkers},
		"HandlerTimeout": duration(b.HandlerTimeout), "CallTimeout": duration(b.CallTimeout),
		"CallPatience": duration(b.CallPatience), "CallHistory": duration(b.CallHistory),
		"ReceiptHistory": duration(b.ReceiptHistory), "RepairHistory": duration(b.RepairHistory),
		"DatabasePatience":  duration(b.DatabasePatience),
		"ShutdownTimeout":   duration(b.ShutdownTimeout),
		"MalformedMessages": {int64(b.MalformedMessages), math.MaxInt64},
		"MalformedBytes":    {b.MalformedBytes, math.MaxInt64},
	}
	maps.Copy(list, b.Retry.bounds())
	return faultsOf(list, b.Retry.or(Retry{maxAttempts, retryFirst, retryMax}))
}

// validate returns all faults of the handler's options. The retry policy of the consumer is that of
// the fields that the handler leaves out.
func (h Handler) validate(otherwise Retry) error {
	o := h.options
	list := o.Retry.bounds()
	list["Timeout"] = duration(o.Timeout)
	list["Concurrency"] = bound{int64(o.Concurrency), math.MaxInt64}
	errs := []error{faultsOf(list, o.Retry.or(otherwise))}
	if slices.ContainsFunc(o.Middleware, func(m Middleware) bool { return m == nil }) {
		errs = append(errs, errNoMiddleware)
	}
	return errors.Join(errs...)
}

var errNoMiddleware = errors.New("Middleware contains nil")

// bound is a value with its limit.
type bound struct{ value, limit int64 }

// duration is a bound on a time. Beyond a century the end of a lease or of a pause overflows.
func duration(d time.Duration) bound { return bound{int64(d), int64(engine.MaxDuration)} }

func (r Retry) bounds() map[string]bound {
	return map[string]bound{"Retry.Attempts": {int64(r.Attempts), math.MaxInt64},
		"Retry.First": duration(r.First), "Retry.Longest": duration(r.Longest)}
}

// faultsOf returns what is wrong with values, and with a policy.
func faultsOf(list map[string]bound, retry Retry) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(list)) {
		switch b := list[name]; {
		case b.value < 0:
			errs = append(errs, fmt.Errorf("%s is %d: it must not be negative; 0 means its default", name,
				b.value))
		case b.value > b.limit:
			errs = append(errs, fmt.Errorf("%s is %d: it must be at most %d", name, b.value, b.limit))
		}
	}
	if len(errs) == 0 && retry.First > retry.Longest {
		errs = append(errs, fmt.Errorf("Retry.First is %s and Retry.Longest is %s: the first pause must "+
			"not be longer", retry.First, retry.Longest))
	}
	return errors.Join(errs...)
}

// orDefaults returns the bounds with the default of each that is zero.
func (b Bounds) orDefaults() Bounds {
	processors := runtime.GOMAXPROCS(0)
	b.Lanes = cmp.Or(b.Lanes, max(leastLanes, lanesPerProcessor*processors))
	b.BatchMax = cmp.Or(b.BatchMax, batchMax)
	b.Prefetch = cmp.Or(b.Prefetch, prefetch)
	b.PrefetchBytes = cmp.Or(b.PrefetchBytes, prefetchBytes)
	b.HandlerTimeout = cmp.Or(b.HandlerTimeout, handlerTimeout)
	b.CallWorkers = cmp.Or(b.CallWorkers, max(leastCallWorkers, callsPerProcessor*processors))
	b.CallTimeout = cmp.Or(b.CallTimeout, callTimeout)
	b.CallPatience = cmp.Or(b.CallPatience, callPatience)
	b.CallHistory = cmp.Or(b.CallHistory, callHistory)
	b.ReceiptHistory = cmp.Or(b.ReceiptHistory, DefaultReceiptHistory)
	b.RepairHistory = cmp.Or(b.RepairHistory, repairHistory)
	b.DatabasePatience = cmp.Or(b.DatabasePatience, databasePatience)
	b.Retry = b.Retry.or(Retry{maxAttempts, retryFirst, retryMax})
	b.MalformedMessages = cmp.Or(b.MalformedMessages, malformedMessages)
	b.MalformedBytes = cmp.Or(b.MalformedBytes, malformedBytes)
	b.ShutdownTimeout = cmp.Or(b.ShutdownTimeout, shutdownTimeout)
	return b
}

// compile returns the bounds, which have their defaults, as the engine sees them.
func (b Bounds) compile() engine.Bounds {
	return engine.Bounds{
		Lanes: b.Lanes, BatchMax: b.BatchMax, Prefetch: b.Prefetch, PrefetchBytes: b.PrefetchBytes,
		HandlerTimeout: b.HandlerTimeout, CallWorkers: b.CallWorkers, CallTimeout: b.CallTimeout,
		CallPatience: b.CallPatience, CallHistory: b.CallHistory,
		ReceiptHistory: b.ReceiptHistory, RepairHistory: b.RepairHistory,
		DatabasePatience: b.DatabasePatience, Retry: engine.Retry(b.Retry),
		Malformed:       inbox.Bounds{Messages: b.MalformedMessages, Bytes: b.MalformedBytes},
		ShutdownTimeout: b.ShutdownTimeout,
	}
}

// or returns the policy with the fields of another one where it has none.
func (r Retry) or(otherwise Retry) Retry {
	return Retry{
		Attempts: cmp.Or(r.Attempts, otherwise.Attempts), First: cmp.Or(r.First, otherwise.First),
		Longest: cmp.Or(r.Longest, otherwise.Longest),
	}
}

// DefaultReceiptHistory is the default of ReceiptHistory, for programs that have a setting for it.
const DefaultReceiptHistory = 60 * 24 * time.Hour

// The limits of the bounds.
const (
	maxLanes       = 1 << 10
	maxPrefetch    = 1<<16 - 1 // AMQP has 16 bits for it, and 0 means no bound
	maxCallWorkers = 1 << 16
)

// The defaults of the bounds. Of lanes and call workers there are more on many processors.
const (
	leastLanes        = 4
	lanesPerProcessor = 2
	batchMax          = 200
	prefetch          = 2000
	prefetchBytes     = 64 << 20
	handlerTimeout    = time.Minute
	leastCallWorkers  = 32
	callsPerProcessor = 16
	callTimeout       = 10 * time.Second
	callPatience      = 6 * time.Hour
	callHistory       = 14 * 24 * time.Hour
	repairHistory     = 90 * 24 * time.Hour
	databasePatience  = 24 * time.Hour
	maxAttempts       = 10
	retryFirst        = time.Second
	retryMax          = 5 * time.Minute
	malformedMessages = 1000
	malformedBytes    = 64 << 20
	shutdownTimeout   = 10 * time.Second
)
