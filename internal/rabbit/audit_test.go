package rabbit_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/quadrille-go/quadrille/fulfilment"
	"github.com/quadrille-go/quadrille/internal/localrun"
	"github.com/quadrille-go/quadrille/internal/rabbit"
	"github.com/quadrille-go/quadrille/internal/servertest"
)

// An audit finds nothing if the topology was applied, and otherwise reports each difference.
func TestAuditReportsWhatDiffers(t *testing.T) {
	t.Parallel()
	broker, manage := servertest.Vhost(t)
	audit := func() []rabbit.Finding {
		t.Helper()
		found, err := rabbit.Audit(t.Context(), manage, broker, fulfilment.Topology())
		must(t, err)
		return found
	}
	if found := audit(); len(found) < 10 || found[0].Kind != rabbit.Missing || found[0].Remedy == "" {
		t.Errorf("findings on an empty broker: %v", found)
	}
	must(t, rabbit.Apply(t.Context(), broker, fulfilment.Topology()))
	if found := audit(); len(found) != 0 {
		t.Errorf("findings right after the topology was applied: %v", found)
	}
	u, _ := url.Parse(broker)
	vhost := strings.TrimPrefix(u.Path, "/")
	admin := channel(t, broker)
	must(t, admin.QueueUnbind("payments.in", "order.placed", "orders.events", nil))
	must(t, admin.QueueBind("payments.in", "order.confirmed", "orders.events", false, nil))
	must(t, admin.ExchangeDelete("inventory.events", false, false))
	_, err := admin.QueueDelete("shipping.in", false, false, false)
	must(t, err)
	// classic, without a limit
	_, err = admin.QueueDeclare("shipping.in", true, false, false, false, nil)
	must(t, err)
	_, err = admin.QueueDeclare("stray", true, false, false, false, nil)
	must(t, err)
	must(t, localrun.Manage(t.Context(), manage, http.MethodPut, "/api/policies/"+vhost+"/short",
		map[string]any{
			"pattern": "^orders\\.in$", "definition": map[string]any{"max-length": 10}, "apply-to": "queues",
		}, nil))
	want := map[string]string{
		"binding orders.events → payments.in under order.placed":    rabbit.Missing,
		"binding orders.events → payments.in under order.confirmed": rabbit.Extra,
		"binding orders.events → shipping.in under order.placed":    rabbit.Missing,
		"exchange inventory.events":                                 rabbit.Missing,
		"queue shipping.in":                                         rabbit.Conflict,
		"queue orders.in":                                           rabbit.Conflict, // by the policy
		"queue stray":                                               rabbit.Extra,
	}
	waitFor(t, "the policy is in effect", func() bool {
		for _, f := range audit() {
			if f.Object == "queue orders.in" {
				return strings.Contains(f.Detail, "max-length to 10") &&
					strings.Contains(f.Remedy, "clear_policy -p "+vhost+" short")
			}
		}
		return false
	})
	for _, f := range audit() {
		if kind, ok := want[f.Object]; ok && f.Kind != kind {
			t.Errorf("%+v, want %s", f, kind)
		}
		delete(want, f.Object)
		if f.Kind != rabbit.Extra && f.Remedy == "" {
			t.Errorf("%+v has no remedy", f)
		}
	}
	for object := range want {
		t.Errorf("no finding about %s", object)
	}
}

func TestAuditHoldsNoPassword(t *testing.T) {
	t.Parallel()
	broker, _ := servertest.Vhost(t)
	for _, bad := range []string{"http://nobody:hunter2@127.0.0.1:1", "hunter2",
		"http://nobody:hunter2@%zz"} {
		_, err := rabbit.Audit(t.Context(), bad, broker, fulfilment.Topology())
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("error %v", err)
		}
	}
}

// A broker that does not know the channel of a new consumer yet lists it without details.
func TestConsumerWithoutDetailsIsDecoded(t *testing.T) {
	t.Parallel()
	for consumer, want := range map[string]string{
		`{"consumer_tag":"x","channel_details":[]}`:                      "",
		`{"consumer_tag":"x","channel_details":{"connection_name":"c"}}`: "c",
	} {
		if got, err := rabbit.ConnectionOf(consumer); err != nil || got != want {
			t.Errorf("%s: %q, %v", consumer, got, err)
		}
	}
}
