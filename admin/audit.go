package admin

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"
)

const (
	// maxPublished is how many events are in one page of the history.
	maxPublished = 1000
	// auditTimeout is how long one service may need for its own invariants.
	auditTimeout = 5 * time.Minute
)

// Published is an event in the history of a service, without its data.
type Published struct {
	Seq     int64     `json:"seq"`
	ID      string    `json:"id"`
	Type    string    `json:"type"`
	Subject string    `json:"subject"`
	At      time.Time `json:"at"`                // it was appended to the outbox
	Content int64     `json:"content,string"`    // the first eight bytes of the SHA-256 of its data
	Waiting bool      `json:"waiting,omitempty"` // it is not published yet, or it is held
}

// Finding is a contradiction: an invariant that does not hold.
type Finding struct {
	Service string `json:"service,omitempty"` // empty: it is about several
	Subject string `json:"subject,omitempty"` // empty: it is about no single subject
	Rule    string `json:"rule"`              // the name of the invariant
	Detail  string `json:"detail"`            // what is, and what should be, with the numbers
	// what to do: the words of a command after the program's name
	Next string `json:"next,omitempty"`
}

// Audit is the result of comparing what services have published with what others have received, and
// each service with its own invariants.
type Audit struct {
	Events   int       `json:"events"`    // compared with the inboxes of their subscribers
	UnderWay int       `json:"under_way"` // events that wait in an outbox, for a retry or for a person
	Findings []Finding `json:"findings"`
	Missing  []Missing `json:"missing"`
	// Checked says what else was compared, such as "36 orders".
	Checked []string `json:"checked,omitempty"`
	// Since is the time of the oldest event in the history of each service.
	Since map[string]time.Time `json:"since"`

	counts map[string]map[string]int // by subject and type
}

// Published returns how many events of each type the services have in their histories about a
// subject.
func (a *Audit) Published(subject string) map[string]int { return a.counts[subject] }

// Auditor compares the services of a choreography.
type Auditor struct {
	Client *Client
	// Subscribers returns the services that handle a type.
	Subscribers func(eventType string) []string
	// Grace is how long an event may be under way between two services.
	Grace time.Duration
	// Progress is called with the number of compared events, now and then; nil: nobody is told.
	Progress func(events int)
}

// suspect is an event that a subscriber seems not to have received as it was published.
type suspect struct {
	publisher, subscriber string
	event                 Published
}

// Run checks that each event in the history of a service is in the inbox of each of its
// subscribers, with the same data, or waits in an outbox; and that each service keeps its own
// invariants. It changes nothing, and traffic may go on: what seems to be lost is looked up again
// after Grace.
func (a Auditor) Run(ctx context.Context) (Audit, error) {
	result := Audit{Findings: []Finding{}, Missing: []Missing{}, Since: map[string]time.Time{},
		counts: map[string]map[string]int{}}
	for _, own := range All(a.Client.Services, func(service string) ([]Finding, error) {
		return a.Client.Service(service).Audit(ctx)
	}) {
		if own.Err != nil {
			result.Missing = append(result.Missing, NewMissing(own.Service, own.Err))
		}
		for _, f := range own.Value {
			f.Service = own.Service
			result.Findings = append(result.Findings, f)
		}
	}
	var suspects []suspect
	for _, publisher := range a.Client.Services {
		if away(result.Missing, publisher) {
			continue
		}
		found, err := a.compare(ctx, publisher, &result)
		if err != nil && !Unreachable(err) {
			return result, err
		}
		if err != nil {
			result.Missing = append(result.Missing, NewMissing(publisher, err))
		}
		suspects = append(suspects, found...)
	}
	return result, a.confirm(ctx, suspects, &result)
}

// compare compares the history of one service with the inboxes of its subscribers.
func (a Auditor) compare(ctx context.Context, publisher string,
	result *Audit) (suspects []suspect, err error) {
	for after := int64(0); ; {
		page, err := a.Client.Service(publisher).Published(ctx, after, maxPublished)
		if err != nil {
			return suspects, err
		}
		found, err := a.comparePage(ctx, publisher, page, result)
		if err != nil {
			return suspects, err
		}
		suspects = append(suspects, found...)
		if a.Progress != nil {
			a.Progress(result.Events)
		}
		if len(page) < maxPublished {
			return suspects, nil
		}
		after = page[len(page)-1].Seq
	}
}

func (a Auditor) comparePage(ctx context.Context, publisher string, page []Published,
	result *Audit) (suspects []suspect, err error) {
	to := map[string][]Published{} // by subscriber
	for _, e := range page {
		if since, ok := result.Since[publisher]; !ok || e.At.Before(since) {
			result.Since[publisher] = e.At
		}
		if result.counts[e.Subject] == nil {
			result.counts[e.Subject] = map[string]int{}
		}
		result.counts[e.Subject][e.Type]++
		result.Events++
		if e.Waiting {
			result.UnderWay++
			continue
		}
		for _, subscriber := range a.Subscribers(e.Type) {
			if !away(result.Missing, subscriber) {
				to[subscriber] = append(to[subscriber], e)
			}
		}
	}
	for _, subscriber := range slices.Sorted(maps.Keys(to)) {
		lost, differ, pending, err := a.received(ctx, publisher, subscriber, to[subscriber])
		if err != nil {
			return nil, err
		}
		result.UnderWay += pending
		result.Findings = append(result.Findings, differ...)
		for _, e := range lost {
			suspects = append(suspects, suspect{publisher, subscriber, e})
		}
	}
	return suspects, nil
}

// received looks events up in the inbox of a subscriber. It returns those that are not there, and
// findings for those that have other data there, and how many wait for a retry or for a person.
func (a Auditor) received(ctx context.Context, publisher, subscriber string,
	published []Published) (lost []Published, differ []Finding, pending int, err error) {
	ids := make([]string, len(published))
	for i, e := range published {
		ids[i] = e.ID
	}
	list, err := a.Client.Service(subscriber).Handled(ctx, ids)
	if err != nil {
		return nil, nil, 0, err
	}
	accepted := map[string]Handled{}
	for _, h := range list {
		if h.Owner == publisher {
			accepted[h.ID] = h
		}
	}
	for _, e := range published {
		h, ok := accepted[e.ID]
		switch {
		case !ok:
			lost = append(lost, e)
		case h.Type != e.Type || h.Content != nil && *h.Content != e.Content:
			differ = append(differ, Finding{Service: publisher, Subject: e.Subject, Rule: "same content",
				Detail: fmt.Sprintf(
					"%s %s has other data in the outbox of %s than %s has received: one of the "+
						"two was changed afterwards", e.Type, e.ID, publisher, subscriber), Next: "trace " +
					e.Subject})
		case h.Unhandled != "" && h.Unhandled != "discarded":
			pending++
		}
	}
	return lost, differ, pending, nil
}

// recheckEvery is how often what seems to be lost is looked up again.
const recheckEvery = time.Second

// confirm looks the suspects up again until they have arrived or Grace is over, and reports those
// that are still missing.
func (a Auditor) confirm(ctx context.Context, suspects []suspect, result *Audit) error {
	for end := time.Now().Add(a.Grace); len(suspects) > 0; {
		rest := time.Until(end)
		err := pause(ctx, min(rest, recheckEvery))
		if err != nil {
			return err
		}
		if suspects, err = a.recheck(ctx, suspects, result); err != nil {
			return err
		}
		if rest <= recheckEvery {
			break
		}
	}
	for _, s := range suspects {
		result.Findings = append(result.Findings, Finding{Service: s.subscriber, Subject: s.event.Subject,
			Rule: "received", Detail: fmt.Sprintf("%s %s, which %s published at %s, is not in the inbox of "+
				"%s: it is in the queue, or it is lost; to replay it has no second effect", s.event.Type,
				s.event.ID, s.publisher, s.event.At.UTC().Format(time.RFC3339), s.subscriber),
			Next: "replay " + s.publisher + " " + s.event.ID})
	}
	return nil
}

// recheck returns the suspects that are still missing.
func (a Auditor) recheck(ctx context.Context, suspects []suspect,
	result *Audit) (still []suspect, err error) {
	between := map[[2]string][]Published{}
	for _, s := range suspects {
		edge := [2]string{s.publisher, s.subscriber}
		between[edge] = append(between[edge], s.event)
	}
	for _, edge := range slices.SortedFunc(maps.Keys(between), func(a, b [2]string) int {
		return slices.Compare(a[:], b[:])
	}) {
		for chunk := range slices.Chunk(between[edge], maxIDs) {
			lost, differ, pending, err := a.received(ctx, edge[0], edge[1], chunk)
			if err != nil {
				return nil, err
			}
			result.UnderWay += pending
			result.Findings = append(result.Findings, differ...)
			for _, e := range lost {
				still = append(still, suspect{edge[0], edge[1], e})
			}
		}
	}
	return still, nil
}

func published(s Service, r *http.Request) (any, error) {
	limit, err := pageLimit(r, maxPublished)
	if err != nil {
		return nil, err
	}
	after, err := pageAfter(r)
	if err != nil {
		return nil, err
	}
	return s.Published(r.Context(), after, limit)
}

func (s remote) Published(ctx context.Context, after int64, limit int) (list []Published,
	err error) {
	err = s.get(ctx, "published?"+pageOfID(after, limit), &list)
	return list, err
}

func (s remote) Audit(ctx context.Context) (list []Finding, err error) {
	ctx, cancel := context.WithTimeout(ctx, auditTimeout)
	defer cancel()
	err = s.get(ctx, "audit", &list)
	return list, err
}
