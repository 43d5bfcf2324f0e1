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
	listAttempts = 25       // of one listing, while the broker has an internal error
	maxListing   = 64 << 20 // bytes of one answer of the management API
)

// The kinds of a finding. Missing and Conflict are errors. Extra is a warning, since the object may
// belong to another version or to another system.
const (
	Missing  = "missing"
	Conflict = "conflict"
	Extra    = "extra"
)

// Finding is a difference between a broker and a topology, with its remedy.
type Finding struct {
	Kind   string `json:"kind"`
	Object string `json:"object"`
	Detail string `json:"detail,omitempty"`
	Remedy string `json:"remedy,omitempty"`
}

// listing is the state of a virtual host as the management API returns it.
type listing struct {
	vhost     string
	Exchanges []struct {
		Name      string         `json:"name"`
		Type      string         `json:"type"`
		Durable   bool           `json:"durable"`
		Arguments map[string]any `json:"arguments"`
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

// Audit compares a broker with a topology through the management API. It includes policies, since
// the settings that a policy adds are not among the arguments of a queue and may drop messages. A
// queue that is consumed for two databases is a conflict. It checks the virtual host in the
// broker's URL. Its errors contain no password.
func Audit(ctx context.Context, managementURL, brokerURL string, t topology.Topology) ([]Finding,
	error) {
	ctx, cancel := context.WithTimeout(ctx, auditTimeout)
	defer cancel()
	l, err := inspect(ctx, managementURL, brokerURL)
	if err != nil {
		return nil, fmt.Errorf("audit topology: %w", err)
	}
	consumers, unknown, err := subscriptions(ctx, managementURL, l.vhost)
	if err != nil {
		return nil, fmt.Errorf("audit topology: %w", err)
	}
	found := slices.Concat(l.exchanges(t), l.queues(t), l.bindings(t), divided(consumers, t), unknown)
	slices.SortStableFunc(found, func(a, b Finding) int {
		return cmp.Or(-cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Object, b.Object))
	})
	return found, nil
}

// inspect reads the state of the virtual host of a broker's URL.
func inspect(ctx context.Context, managementURL, brokerURL string) (l listing, err error) {
	uri, err := parseURL(addresses(brokerURL)[0])
	if err != nil {
		return l, err
	}
	l.vhost = uri.Vhost
	for path, into := range map[string]any{"exchanges": &l.Exchanges, "queues": &l.Queues,
		"bindings": &l.Bindings} {
		path = "/api/" + path + "/" + url.PathEscape(l.vhost)
		if err := listAgain(ctx, managementURL, path, into); err != nil {
			return l, err
		}
	}
	return l, nil
}

// listAgain is list, repeated for a while if the broker has an internal error, as it may have while
// it creates or removes what it lists.
func listAgain(ctx context.Context, managementURL, path string, into any) error {
	tick := time.NewTicker(applyInterval)
	defer tick.Stop()
	for attempt := 1; ; attempt++ {
		err := list(ctx, managementURL, path, into)
		var status statusError
		if !errors.As(err, &status) || status != http.StatusInternalServerError ||
			attempt == listAttempts {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
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
		return fmt.Errorf("get %s: %w", path, err)
	}
	password, _ := account.Password()
	request.SetBasicAuth(account.Username(), password)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("get %s: %w", path, err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("get %s: %w", path, statusError(response.StatusCode))
	}
	decoder := json.NewDecoder(io.LimitReader(response.Body, maxListing))
	decoder.UseNumber() // a float64 would print 1e+06 for 1000000, which is then a difference
	if err := decoder.Decode(into); err != nil {
		return fmt.Errorf("decode the answer of %s: %w", path, err)
	}
	return nil
}

// statusError is an answer of the management API that is not 200.
type statusError int

func (e statusError) Error() string { return fmt.Sprintf("%d %s", int(e), http.StatusText(int(e))) }

const (
	applyCommand   = "apply the topology (command: topology apply)"
	migrateCommand = "recreate it without losing events (command: topology migrate)"
)

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
		case e.Name == "" || strings.HasPrefix(e.Name, "amq."): // the broker declares these itself
		case !ours:
			found = append(found, Finding{Kind: Extra, Object: object})
		case e.Type != kind || !e.Durable:
			found = append(found, Finding{Conflict, object,
				fmt.Sprintf("it is of type %s, durable %t; want %s, durable", e.Type, e.Durable, kind),
				"delete it, then " + applyCommand})
		}
	}
	for name := range want {
		found = append(found, Finding{Missing, "exchange " + name, "", applyCommand})
	}
	return found
}

func (l listing) queues(t topology.Topology) (found []Finding) {
	want := map[string]topology.Queue{}
	for _, q := range t.Broker().Queues {
		want[q.Name] = q
	}
	for _, q := range l.Queues {
		ours, known := want[q.Name]
		delete(want, q.Name)
		object := "queue " + q.Name
		if !known {
			found = append(found, Finding{Kind: Extra, Object: object, Detail: "no service of this " +
				"topology consumes it: it grows while it is bound"})
			continue
		}
		if detail := diffArguments(ours.Args, q.Arguments); detail != "" || !q.Durable {
			found = append(found, Finding{Conflict, object, cmp.Or(detail, "it is not durable"),
				migrateCommand})
		}
		for key, value := range q.Effective {
			if declared, ok := ours.Args["x-"+key]; !ok || fmt.Sprint(declared) != fmt.Sprint(value) {
				found = append(found, Finding{Conflict, object, fmt.Sprintf("the policy %s sets %s to %v",
					q.Policy, key, value),
					"rabbitmqctl clear_policy -p " + l.vhost + " " + q.Policy})
			}
		}
	}
	for name := range want {
		found = append(found, Finding{Missing, "queue " + name, "", applyCommand})
	}
	return found
}

// diffArguments describes the arguments that differ from the declared ones.
func diffArguments(want map[string]any, have map[string]any) string {
	var details []string
	for key, value := range want {
		if other, ok := have[key]; !ok || fmt.Sprint(other) != fmt.Sprint(value) {
			details = append(details, fmt.Sprintf("%s is %v, want %v", key, other, value))
		}
	}
	for key, value := range have {
		if _, ok := want[key]; !ok {
			details = append(details, fmt.Sprintf("%s is %v, but is not declared", key, value))
		}
	}
	slices.Sort(details)
	return strings.Join(details, "; ")
}

func bindingTitle(exchange, key, queue string) string {
	return fmt.Sprintf("binding %s → %s under %s", exchange, queue, key)
}

func (l listing) bindings(t topology.Topology) (found []Finding) {
	want := map[string]bool{}
	for _, b := range t.Broker().Bindings {
		want[bindingTitle(b.Exchange, b.Key, b.Queue)] = true
	}
	for _, b := range l.Bindings {
		object := bindingTitle(b.Source, b.Key, b.Destination)
		if b.Source != "" && !want[object] { // every queue is bound to the default exchange
			found = append(found, Finding{Kind: Extra, Object: object,
				Detail: "it belongs to another version of the topology or to another system"})
		}
		delete(want, object)
	}
	for object := range want {
		found = append(found, Finding{Missing, object, "", applyCommand})
	}
	return found
}
