package resilience_test

import (
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/resilience"
)

// BenchmarkGuards measures the cost of each guard around a call that does nothing.
func BenchmarkGuards(b *testing.B) {
	breaker := &resilience.Breaker{Name: "peer"}
	for name, guard := range map[string]resilience.Guard{
		"none":     resilience.Chain(),
		"time-out": resilience.Timeout(time.Second),
		"retry": resilience.Retry(resilience.Retries{Max: 1, First: time.Millisecond,
			Longest: time.Millisecond, Budget: &resilience.Budget{}}),
		"breaker":  breaker.Guard(),
		"bulkhead": resilience.Bulkhead(8, 8),
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := guard(b.Context(), succeed); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
