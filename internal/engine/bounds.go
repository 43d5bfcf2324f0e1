package engine

import (
	"time"

	"github.com/quadrille-go/quadrille/internal/inbox"
)

// MaxDuration is the longest pause or time-out. Beyond a century the end of a lease overflows.
const MaxDuration = 100 * 365 * 24 * time.Hour

// Bounds are the limits of an engine. All are set: package consumer has the defaults, and says what
// each one means.
type Bounds struct {
	Lanes            int
	BatchMax         int
	Prefetch         int
	PrefetchBytes    int64
	HandlerTimeout   time.Duration
	CallWorkers      int
	CallTimeout      time.Duration
	CallPatience     time.Duration
	CallHistory      time.Duration
	ReceiptHistory   time.Duration
	RepairHistory    time.Duration
	DatabasePatience time.Duration
	Retry            Retry // of types without a handler
	Malformed        inbox.Bounds
	ShutdownTimeout  time.Duration
}
