// Package simulator plays the outside world: a payment provider and a carrier over HTTP, with a
// journal of every call, and with the faults that its rules set.
//
// It promises what a good outside world does: a call with a key that was seen is answered as it was
// the first time, and done once. The journal is the witness for that. It is kept in memory, for
// tests, the demo and a person who tries things out; it is not for production.
package simulator

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"
)

// The bounds of the simulators.
const (
	maxJournal = 1_000_000
	maxBody    = 64 << 10
	lateness   = 5 * time.Second // of a late answer, above the time-out of the services
)

// The calls, by their paths.
const (
	Charges  = "charges"
	Refunds  = "refunds"
	Bookings = "bookings"
	Recalls  = "recalls"
)

var calls = []string{Charges, Refunds, Bookings, Recalls}

// What a rule can make of a call: Fail answers 503, Hang never, Refuse no for good; Late does it
// and answers after the time-out; Twice does it and gives the answer twice.
const (
	OK     = "ok"
	Fail   = "fail"
	Hang   = "hang"
	Refuse = "refuse"
	Late   = "late"
	Twice  = "twice"
)

var verbs = []string{OK, Fail, Hang, Refuse, Late, Twice}

// Rule sets the outcome of calls. An empty Call is any, an empty OrderID any order; the rule that
// names more wins.
type Rule struct {
	Call    string `json:"call,omitempty"`
	OrderID string `json:"order_id,omitempty"`
	Do      string `json:"do"`
}

// Entry is one call in the journal.
type Entry struct {
	At       time.Time `json:"at"`
	Call     string    `json:"call"`
	Key      string    `json:"key"`
	OrderID  string    `json:"order_id"`
	Amount   int64     `json:"amount,omitempty"`
	Currency string    `json:"currency,omitempty"`
	Rule     string    `json:"rule"`
	Done     bool      `json:"done"`     // it had its effect, now
	Replayed bool      `json:"replayed"` // its key had been seen: answered as before
	Refused  bool      `json:"refused"`
}

// Simulator is both outside worlds. It is safe for concurrent use.
type Simulator struct {
	mu      sync.Mutex
	rules   []Rule
	journal []Entry
	answers map[string]answer // by call and key
}

type answer struct {
	status int
	body   map[string]string
}

// New returns simulators that accept every request.
func New() *Simulator { return &Simulator{answers: map[string]answer{}} }

// Handler returns their API:
//
//	POST /charges, /refunds    the payment provider, with an Idempotency-Key
//	POST /bookings, /recalls   the carrier, the same way
//	GET  /journal?order=&call= every call
//	GET, PUT, DELETE /rules    what becomes of calls: {"call","order_id","do"}
func (s *Simulator) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, call := range calls {
		mux.HandleFunc("POST /"+call, func(w http.ResponseWriter, r *http.Request) { s.call(w, r, call) })
	}
	for _, path := range []string{"GET /healthz", "GET /readyz"} {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			write(w, http.StatusOK, map[string]string{"status": "alive"})
		})
	}
	mux.HandleFunc("GET /journal", func(w http.ResponseWriter, r *http.Request) {
		write(w, http.StatusOK, s.Journal(r.URL.Query().Get("order"), r.URL.Query().Get("call")))
	})
	mux.HandleFunc("GET /rules", func(w http.ResponseWriter, _ *http.Request) {
		write(w, http.StatusOK,
			s.listRules())
	})
	mux.HandleFunc("PUT /rules", s.putRule)
	mux.HandleFunc("DELETE /rules", func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		s.rules = nil
		s.mu.Unlock()
		write(w, http.StatusOK, []Rule{})
	})
	return mux
}

// Journal returns the calls, all or those about one order or of one kind.
func (s *Simulator) Journal(order, call string) []Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := []Entry{}
	for _, e := range s.journal {
		if (order == "" || e.OrderID == order) && (call == "" || e.Call == call) {
			found = append(found, e)
		}
	}
	return found
}

// SetRule adds a rule, in place of one about the same calls.
func (s *Simulator) SetRule(rule Rule) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rules = slices.DeleteFunc(s.rules, func(r Rule) bool {
		return r.Call == rule.Call &&
			r.OrderID == rule.OrderID
	})
	s.rules = append(s.rules, rule)
}

func (s *Simulator) listRules() []Rule {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Rule{}, s.rules...)
}

func (s *Simulator) putRule(w http.ResponseWriter, r *http.Request) {
	var rule Rule
	decoder := json.NewDecoder(io.LimitReader(r.Body, maxBody))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(&rule)
	if err == nil && (!slices.Contains(verbs, rule.Do) || rule.Call != "" &&
		!slices.Contains(calls, rule.Call)) {
		err = fmt.Errorf("do must be one of %v, call empty or one of %v", verbs, calls)
	}
	if err != nil {
		write(w, http.StatusBadRequest, map[string]string{"reason": err.Error()})
		return
	}
	s.SetRule(rule)
	write(w, http.StatusOK, s.listRules())
}

// ruleFor returns the outcome of the most specific rule.
func (s *Simulator) ruleFor(call, order string) string {
	best, do := -1, OK
	for _, r := range s.rules {
		if r.Call != "" && r.Call != call || r.OrderID != "" && r.OrderID != order {
			continue
		}
		names := 0
		if r.Call != "" {
			names++
		}
		if r.OrderID != "" {
			names += 2
		}
		if names > best {
			best, do = names, r.Do
		}
	}
	return do
}

func (s *Simulator) call(w http.ResponseWriter, r *http.Request, call string) {
	var in struct {
		OrderID  string `json:"order_id"`
		Amount   int64  `json:"amount"`
		Currency string `json:"currency"`
	}
	key := r.Header.Get("Idempotency-Key")
	err := json.NewDecoder(io.LimitReader(r.Body, maxBody)).Decode(&in)
	if err != nil || key == "" || in.OrderID == "" {
		write(w, http.StatusBadRequest,
			map[string]string{"reason": "an Idempotency-Key and an order_id are required"})
		return
	}
	a, do := s.answer(Entry{At: time.Now(), Call: call, Key: key, OrderID: in.OrderID,
		Amount: in.Amount, Currency: in.Currency})
	switch do {
	case Hang:
		<-r.Context().Done()
		panic(http.ErrAbortHandler) // to return would answer 200
	case Late:
		timer := time.NewTimer(lateness)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		}
	case Twice:
		defer write(w, a.status, a.body)
	}
	write(w, a.status, a.body)
}

// answer executes a request, unless it was executed under this key, and writes the journal.
func (s *Simulator) answer(e Entry) (answer, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.Rule = s.ruleFor(e.Call, e.OrderID)
	defer func() {
		if len(s.journal) < maxJournal {
			s.journal = append(s.journal, e)
		}
	}()
	switch known, seen := s.answers[e.Call+" "+e.Key]; {
	case e.Rule == Fail:
		return answer{http.StatusServiceUnavailable, map[string]string{"reason": "out of order"}}, e.Rule
	case e.Rule == Hang:
		return answer{}, e.Rule
	case seen:
		e.Replayed = true
		return known, e.Rule
	}
	a := answer{http.StatusCreated, map[string]string{"id": e.Call + "-" + e.Key, "state": "done"}}
	if e.Refused = e.Rule == Refuse; e.Refused {
		a = answer{http.StatusPaymentRequired, map[string]string{"reason": "refused by the simulator"}}
	}
	e.Done = !e.Refused
	s.answers[e.Call+" "+e.Key] = a
	return a, e.Rule
}

func write(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client has disconnected when this fails
}
