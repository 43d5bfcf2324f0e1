package rabbit

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/quadrille-go/quadrille/topology"
)

// The bounds of an audit.
const (
	auditTimeout = 30 * time.Second
	maxListing   = 64 << 20 // bytes of one answer of the management API
)

// The kinds of a finding. Missing and Conflict are errors; Extra is a warning: another version's,
// or somebody else's.
const (
	Missing  = "missing"
	Conflict = "conflict"
	Extra    = "extra"
)

// Finding is something in which a broker differs from a topology, and what repairs it.
type Finding struct {
	Kind   string `json:"kind"`
	Object string `json:"object"`
	Detail string `json:"detail,omitempty"`
	Remedy string `json:"remedy,omitempty"`
}

// listing is what the management API tells of a virtual host.
type listing struct {
	Exchanges []struct {
		Name    string `json:"name"`
		Type    string `json:"type"`
		Durable bool   `json:"durable"`
	}
	Queues []struct {
		Name      string         `json:"name"`
		Durable   bool           `json:"durable"`
		Arguments map[string]any `json:"arguments"`
		Policy    string         `json:"policy"`
		Effective map[string]any `json:"effective_policy_definition"`
	}
	Bindings []struct {
		Source      string `json:"source"`
		Destination string `json:"destination"`
		Kind        string `json:"destination_type"`
		Key         string `json:"routing_key"`
	}
}

// Audit compares a broker with a topology through its management API, policies included: what a
// policy adds to a queue is not in its arguments, and may drop messages. The virtual host is that
// of the broker's URL. Errors hold no password.
func Audit(ctx context.Context, managementURL, brokerURL string, t topology.Topology) ([]Finding,
	error) {
	uri, err := parseURL(brokerURL)
	if err != nil {
		return nil, fmt.Errorf("audit topology: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, auditTimeout)
	defer cancel()
	var l listing
	for path, into := range map[string]any{"exchanges": &l.Exchanges, "queues": &l.Queues,
		"bindings": &l.Bindings} {
		if err := list(ctx, managementURL, "/api/"+path+"/"+url.PathEscape(uri.Vhost), into); err != nil {
			return nil, fmt.Errorf("audit topology: %w", err)
		}
	}
	found := slices.Concat(l.exchanges(t), l.queues(t, uri.Vhost), l.bindings(t))
	slices.SortStableFunc(found, func(a, b Finding) int {
		return cmp.Or(-cmp.Compare(a.Kind, b.Kind),
			cmp.Compare(a.Object, b.Object))
	})
	return found, nil
}

func list(ctx context.Context, managementURL, path string, into any) error {
	base, err := url.Parse(managementURL)
	if err != nil || base.Host == "" {
		return errors.New("management URL: want http://user:password@host:port")
	}
	account := base.User
	base.User = nil
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(base.String(),
		"/")+path, nil)
	if err != nil {
		return fmt.Errorf("ask %s: %w", path, err)
	}
	password, _ := account.Password()
	request.SetBasicAuth(account.Username(), password)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("ask %s: %w", path, err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("ask %s: %s", path, response.Status)
	}
	decoder := json.NewDecoder(io.LimitReader(response.Body, maxListing))
	decoder.UseNumber() // to be compared as they are written
	if err := decoder.Decode(into); err != nil {
		return fmt.Errorf("ask %s: %w", path, err)
	}
	return nil
}

const applyAgain = "quadrille topology apply"

func (l listing) exchanges(t topology.Topology) (found []Finding) {
	want := map[string]string{t.Marker(): "fanout"}
	for _, e := range t.Broker().Exchanges {
		want[e.Name] = e.Kind
	}
	for _, e := range l.Exchanges {
		kind, ours := want[e.Name]
		delete(want, e.Name)
		object := "exchange " + e.Name
		switch {
		case e.Name == "" || strings.HasPrefix(e.Name, "amq."): // the broker's own
		case !ours:
			found = append(found, Finding{Kind: Extra, Object: object})
		case e.Type != kind || !e.Durable:
			found = append(found, Finding{Conflict, object,
				fmt.Sprintf("it is of type %s, durable %t; want %s, durable", e.Type, e.Durable, kind),
				"delete it, then: " + applyAgain})
		}
	}
	for name := range want {
		found = append(found, Finding{Missing, "exchange " + name, "", applyAgain})
	}
	return found
}

func (l listing) queues(t topology.Topology, vhost string) (found []Finding) {
	want := map[string]topology.Queue{}
	for _, q := range t.Broker().Queues {
		want[q.Name] = q
	}
	for _, q := range l.Queues {
		ours, known := want[q.Name]
		delete(want, q.Name)
		object := "queue " + q.Name
		if !known {
			found = append(found, Finding{Kind: Extra, Object: object, Detail: "nobody of this topology " +
				"reads it: it grows for as long as it is bound"})
			continue
		}
		if detail := differs(ours.Args, q.Arguments); detail != "" || !q.Durable {
			found = append(found, Finding{Conflict, object, cmp.Or(detail, "it is not durable"),
				"drain it, delete it, then: " + applyAgain})
		}
		for key, value := range q.Effective {
			if declared, ok := ours.Args["x-"+key]; !ok || fmt.Sprint(declared) != fmt.Sprint(value) {
				found = append(found, Finding{Conflict, object, fmt.Sprintf("the policy %s sets %s to %v",
					q.Policy, key, value),
					"rabbitmqctl clear_policy -p " + vhost + " " + q.Policy})
			}
		}
	}
	for name := range want {
		found = append(found, Finding{Missing, "queue " + name, "", applyAgain})
	}
	return found
}

// differs names the arguments that are not as declared.
func differs(want map[string]any, have map[string]any) string {
	var details []string
	for key, value := range want {
		if other, ok := have[key]; !ok || fmt.Sprint(other) != fmt.Sprint(value) {
			details = append(details, fmt.Sprintf("%s is %v, want %v", key, other, value))
		}
	}
	for key, value := range have {
		if _, ok := want[key]; !ok {
			details = append(details, fmt.Sprintf("%s is %v, which nobody declared", key, value))
		}
	}
	slices.Sort(details)
	return strings.Join(details, "; ")
}

func (l listing) bindings(t topology.Topology) (found []Finding) {
	name := func(exchange, key, queue string) string {
		return fmt.Sprintf("binding %s → %s under %s", exchange, queue, key)
	}
	want := map[string]bool{}
	for _, b := range t.Broker().Bindings {
		want[name(b.Exchange, b.Key, b.Queue)] = true
	}
	for _, b := range l.Bindings {
		object := name(b.Source, b.Key, b.Destination)
		if b.Source != "" && !want[object] { // every queue is bound to the default exchange
			found = append(found, Finding{Kind: Extra, Object: object,
				Detail: "a binding that is left from another version, or somebody else's"})
		}
		delete(want, object)
	}
	for object := range want {
		found = append(found, Finding{Missing, object, "", applyAgain})
	}
	return found
}
