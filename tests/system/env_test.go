package system_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/internal/demo"
	"github.com/quadrille-go/quadrille/internal/fulfilment/simulator"
)

// root returns the folder of the checkout.
func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "go.mod")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// chaosRun is the load, the faults, and the orders that the clients placed.
type chaosRun struct {
	t      *testing.T
	stack  *demo.Stack
	random *rand.Rand // of the faults
	draw   *rand.Rand // of the orders, drawn by another goroutine
	http   *http.Client
	done   map[string]int // faults, by kind

	mu     sync.Mutex
	orders map[string]string // idempotency key → order id of the answer
}

// plan is one order that a client will place.
type plan struct {
	key    string
	body   map[string]any
	cancel bool
	repeat bool
}

// The customers and the goods. The customer "poor" can pay for few orders and "nobody" for none.
// There are fewer samovars than orders for them.
const (
	customers = 10
	deposit   = 10_000_000
	poorMoney = 10_000
	teapots   = 1_000_000
	samovars  = 20
)

// A request is repeated until it is answered, for at most the time that the slowest server needs to
// come back.
const (
	tryTimeout    = 10 * time.Second
	answerTimeout = 2 * time.Minute
)

func newChaosRun(t *testing.T, s *demo.Stack, seed uint64) *chaosRun {
	return &chaosRun{
		t: t, stack: s, random: rand.New(rand.NewPCG(seed, 1)), draw: rand.New(rand.NewPCG(seed, 2)),
		done: map[string]int{}, orders: map[string]string{},
		http: &http.Client{Timeout: tryTimeout},
	}
}

// startEmpty starts a stack without data, and stops it at the end of the test.
func startEmpty(t *testing.T, s *demo.Stack) {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(s.Tails())
		}
		if err := s.Down(context.Background()); err != nil {
			t.Errorf("stop the stack: %v", err)
		}
	})
	if err := s.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// load places so many orders, ordersPerSec a second, until ctx is done. All have been placed when
// the channel is closed.
func (w *chaosRun) load(ctx context.Context, orders int) (placed <-chan struct{}) {
	var clientsRun sync.WaitGroup
	work := make(chan plan)
	for range clients {
		clientsRun.Go(func() { w.client(ctx, work) })
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(time.Second / ordersPerSec)
		defer tick.Stop()
		for i := 0; i < orders && ctx.Err() == nil; i++ {
			<-tick.C
			select {
			case work <- w.plan(i):
			case <-ctx.Done():
			}
		}
		close(work)
		clientsRun.Wait()
	}()
	return done
}

func (w *chaosRun) stockUp(ctx context.Context) {
	money := map[string]int64{"poor": poorMoney}
	for i := range customers {
		money[fmt.Sprintf("customer-%d", i)] = deposit
	}
	for customer, amount := range money {
		w.request(ctx, "payments", "PUT", "/accounts/"+customer, "", map[string]any{"currency": "EUR"},
			nil)
		w.request(ctx, "payments", "POST", "/accounts/"+customer+"/deposits", "deposit-"+customer,
			map[string]any{"amount": amount, "currency": "EUR"}, nil)
	}
	for sku, quantity := range map[string]int64{"teapot": teapots, "samovar": samovars} {
		w.request(ctx, "inventory", "POST", "/stock/"+sku+"/receipts", "receipt-"+sku,
			map[string]any{"quantity": quantity}, nil)
	}
}

// plan draws a random order. Only one goroutine may call it.
func (w *chaosRun) plan(i int) plan {
	customer, sku, country := fmt.Sprintf("customer-%d", i%customers), "teapot", "DE"
	switch w.draw.IntN(20) {
	case 0, 1:
		customer = "poor"
	case 2:
		customer = "nobody"
	case 3, 4:
		sku = "samovar"
	case 5, 6:
		country = "AQ"
	}
	card := ""
	if customer != "nobody" && w.draw.IntN(3) == 0 {
		card = "tok_visa"
	}
	lines := []map[string]any{{"sku": sku, "quantity": 1, "unit_price": 2500}}
	if w.draw.IntN(4) == 0 {
		lines = append(lines, map[string]any{"sku": "teapot", "quantity": 2, "unit_price": 100})
	}
	return plan{
		key: fmt.Sprintf("order-%d", i), cancel: w.draw.IntN(8) == 0, repeat: w.draw.IntN(5) == 0,
		body: map[string]any{
			"customer": customer, "currency": "EUR", "lines": lines, "card": card,
			"address": map[string]any{"name": "A", "street": "1", "city": "B", "postal_code": "1",
				"country": country},
		},
	}
}

// client places orders and repeats each request with its key until it is answered.
func (w *chaosRun) client(ctx context.Context, work <-chan plan) {
	for p := range work {
		var o struct{ ID string }
		w.request(ctx, "orders", "POST", "/orders", p.key, p.body, &o)
		if p.repeat {
			var again struct{ ID string }
			w.request(ctx, "orders", "POST", "/orders", p.key, p.body, &again)
			if again.ID != o.ID {
				w.t.Errorf("idempotency key %s created two orders, %s and %s", p.key, o.ID, again.ID)
			}
		}
		w.mu.Lock()
		w.orders[p.key] = o.ID
		w.mu.Unlock()
		if p.cancel {
			w.request(ctx, "orders", "POST", "/orders/"+o.ID+"/cancellation", "", nil, nil)
		}
	}
}

// request repeats a request, alternating between the two replicas, until it gets a final answer:
// 2xx, or 409 for a cancellation after the confirmation.
func (w *chaosRun) request(ctx context.Context, service, method, path, key string, body, out any) {
	data, err := json.Marshal(body)
	if err != nil {
		w.t.Errorf("encode: %v", err)
		return
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var last string
	for try, deadline := 0, time.Now().Add(answerTimeout); time.Now().Before(deadline); try++ {
		request, err := http.NewRequestWithContext(ctx, method, w.stack.URL(service, 1+try%2)+path,
			bytes.NewReader(data))
		if err != nil {
			w.t.Errorf("request: %v", err)
			return
		}
		request.Header.Set("Content-Type", "application/json")
		if key != "" {
			request.Header.Set("Idempotency-Key", key)
		}
		response, err := w.http.Do(request)
		if err == nil {
			answer, _ := io.ReadAll(response.Body)
			_ = response.Body.Close()
			late := response.StatusCode == http.StatusConflict && key == ""
			if response.StatusCode/100 == 2 || late {
				if out != nil && json.Unmarshal(answer, out) != nil {
					w.t.Errorf("%s %s: answer %q", method, path, answer)
				}
				return
			}
			last = fmt.Sprintf("%d %s", response.StatusCode, answer)
		} else {
			last = err.Error()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if !w.t.Failed() { // otherwise the first failure is the reason
				w.t.Errorf("%s %s: %v; the last answer was: %s", method, path, context.Cause(ctx), last)
			}
			return
		}
	}
	w.t.Errorf("%s %s: no final answer within %s; the last answer was: %s", method, path,
		answerTimeout, last)
}

// faults kills and restarts processes at random until the load is done. It restarts the broker at a
// third of the expected time and kills PostgreSQL at two thirds.
func (w *chaosRun) faults(ctx context.Context, placed <-chan struct{}, expected time.Duration) {
	began := time.Now()
	broker, database := began.Add(expected/3), began.Add(expected*2/3)
	rules := []string{simulator.Late, simulator.Fail, simulator.Hang, simulator.Twice, simulator.OK}
	next := began.Add(expected / 6)
	for {
		pause := time.NewTimer(time.Duration(300+w.random.IntN(1500)) * time.Millisecond)
		select {
		case <-placed:
			pause.Stop()
			w.fault("outside: ok", w.setRule(ctx, simulator.Rule{Do: simulator.OK}))
			return
		case <-pause.C:
		}
		if w.t.Failed() {
			return // more faults would hide the first failure
		}
		switch now := time.Now(); {
		case now.After(next) && len(rules) > 0:
			w.fault("outside: "+rules[0], w.setRule(ctx, simulator.Rule{Do: rules[0]}))
			rules, next = rules[1:], now.Add(expected/6)
		case now.After(broker):
			broker = now.Add(24 * time.Hour)
			w.fault("restart broker",
				w.retry(func() error { return w.stack.Backends().RestartRabbitMQ(ctx) }))
		case now.After(database):
			database = now.Add(24 * time.Hour)
			w.fault("kill PostgreSQL", w.stack.Backends().KillPostgres())
			w.fault("start PostgreSQL",
				w.retry(func() error { return w.stack.Backends().RestartPostgres(ctx) }))
		case w.random.IntN(2) == 0:
			names := w.stack.Names()
			w.stack.Kill(names[w.random.IntN(len(names))])
			w.fault("kill -9", nil)
		default:
			w.fault("revive", w.stack.Revive(ctx))
		}
	}
}

func (w *chaosRun) fault(kind string, err error) {
	if err != nil {
		w.t.Errorf("%s: %v", kind, err)
	}
	w.done[kind]++
}

// retry starts a server up to three times, because a loaded machine may time out and the start of
// servers is not under test here.
func (w *chaosRun) retry(start func() error) (err error) {
	for range 3 {
		if err = start(); err == nil {
			return nil
		}
		w.t.Log(err)
	}
	return err
}
