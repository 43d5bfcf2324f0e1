package topology_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/fulfilment"
	"github.com/quadrille-go/quadrille/topology"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s (go test -update writes it):\n%s\nwant\n%s", path, got, want)
	}
}

// What is declared on the broker is a contract: its marker changes with it, and a deployment must
// apply it anew.
func TestFulfilmentIsDeclaredAsAgreed(t *testing.T) {
	t.Parallel()
	topo := fulfilment.Topology()
	declared := struct {
		Marker      string                         `json:"marker"`
		Permissions map[string]topology.Permission `json:"permissions"`
		Broker      topology.Broker                `json:"broker"`
	}{topo.Marker(), map[string]topology.Permission{}, topo.Broker()}
	for _, s := range topo.Services {
		declared.Permissions[s.Name] = topology.PermissionOf(s.Name)
	}
	data, err := json.MarshalIndent(declared, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "fulfilment.golden.json", append(data, '\n'))
	golden(t, "fulfilment.golden.mmd", []byte(topo.Mermaid()))
}

func TestFulfilmentIsClosed(t *testing.T) {
	t.Parallel()
	topo := fulfilment.Topology()
	if err := topo.Validate(); err != nil {
		t.Fatal(err)
	}
	if types := fulfilment.Catalogue().Types(); !slices.Equal(topo.Types(), types) {
		t.Errorf("the choreography says %v, its vocabulary is %v", topo.Types(), types)
	}
}

func service(name string, reacts ...topology.Reaction) topology.Service {
	return topology.Service{Name: name,
		Commands: []topology.Command{{Does: "go", Publishes: []string{name + ".gone"}}}, Reacts: reacts}
}

func TestValidateFindsFaults(t *testing.T) {
	t.Parallel()
	sound := topology.Topology{Name: "test", Services: []topology.Service{service("a"),
		service("b", topology.Reaction{Handles: "a.gone", Does: "follow"})}}
	if err := sound.Validate(); err != nil {
		t.Fatal(err)
	}
	for want, s := range map[string]topology.Service{
		"which no service publishes": service("c", topology.Reaction{Handles: "x.gone", Does: "follow"}),
		"is published by a and by c": {Name: "c",
			Commands: []topology.Command{{Does: "go", Publishes: []string{"a.gone"}}}},
		"is not unique":    service("a"),
		`service name "C"`: service("C"),
		"which is no event type": {Name: "c",
			Commands: []topology.Command{{Does: "go", Publishes: []string{"c.*"}}}},
		"reacts to a.gone twice": service("c", topology.Reaction{Handles: "a.gone", Does: "x"},
			topology.Reaction{Handles: "a.gone", Does: "y"}),
		`undoes "fly"`: service("c", topology.Reaction{Handles: "a.gone", Does: "x",
			Undoes: "fly"}),
		`c: land undoes "follow"`: {Name: "c",
			Commands: []topology.Command{{Does: "land", Undoes: "follow"}}},
		"deadline without a type": {Name: "c",
			Commands: []topology.Command{{Does: "land", After: time.Hour}}},
		"must not be negative": {Name: "c",
			Commands: []topology.Command{{Does: "land", Type: "c.land", After: -time.Hour}}},
		`has the type "c.*"`: {Name: "c", Commands: []topology.Command{{Does: "land", Type: "c.*"}}},
		"is an event that a publishes": {Name: "c",
			Commands: []topology.Command{{Does: "land", Type: "a.gone"}}},
		"have the same type": {Name: "c",
			Commands: []topology.Command{{Does: "land", Type: "c.land"}, {Does: "sink", Type: "c.land"}}},
		`requests "c.call", which is no call`: {Name: "c",
			Commands: []topology.Command{{Does: "land", Requests: []string{"c.call"}}}},
		"which is the type of no command of c": {Name: "c",
			Calls: []topology.Call{{Type: "c.call", Does: "call", Answers: []string{"c.answered"}}}},
		`call and land have the same type`: {Name: "c",
			Commands: []topology.Command{{Does: "call", Type: "c.call"}},
			Calls:    []topology.Call{{Type: "c.call", Does: "land"}}},
		`call has the type a.gone`: {Name: "c", Calls: []topology.Call{{Type: "a.gone", Does: "call"}}},
		`c: call undoes "follow"`: {Name: "c",
			Calls: []topology.Call{{Type: "c.call", Does: "call", Undoes: "follow"}}},
	} {
		if err := sound.With(s).Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	if len(sound.Services) != 2 {
		t.Error("With has changed its receiver")
	}
	longest := strings.Repeat("c", 255) // the longest routing key of AMQP
	for eventType, want := range map[string]bool{longest: true, longest + "c": false} {
		for kind, c := range map[string]topology.Command{"says": {Does: "go",
			Publishes: []string{eventType}}, "has the type": {Does: "go", Type: eventType}} {
			err := sound.With(topology.Service{Name: "c", Commands: []topology.Command{c}}).Validate()
			if (err == nil) != want || err != nil && !strings.Contains(err.Error(), "is no event type") {
				t.Errorf("a service that %s %d characters: %v", kind, len(eventType), err)
			}
		}
	}
	for schema, want := range map[string]bool{"": true, "urn:acme:": true, "urn:acme:shop.eu:": true,
		"acme:": false, "urn:acme": false, "urn:acme: ": false, "urn::": false} {
		named := sound
		if named.Schema = schema; (named.Validate() == nil) != want {
			t.Errorf("the prefix %q: %v", schema, named.Validate())
		}
	}
	sound.Name = "no name"
	if sound.Validate() == nil {
		t.Error("a topology without a proper name is valid")
	}
}

// Two topologies that grow out of the same one do not change each other, also where a list has room
// left.
func TestWithChangesNoOtherTopology(t *testing.T) {
	t.Parallel()
	base := topology.Topology{Name: "test", Services: append(make([]topology.Service, 0, 8),
		service("a"))}
	b, c := base.With(service("b")), base.With(service("c"))
	if len(base.Services) != 1 || b.Services[1].Name != "b" || c.Services[1].Name != "c" {
		t.Errorf("base %v, b %v, c %v", base.Services, b.Services, c.Services)
	}
}

// Whatever changes the declarations changes the marker, and nothing else does.
func TestMarkerFollowsTheDeclarations(t *testing.T) {
	t.Parallel()
	topo := fulfilment.Topology()
	marker := topo.Marker()
	if fulfilment.Topology().Marker() != marker ||
		!regexp.MustCompile(`^topology\.fulfilment\.[0-9a-f]{12}$`).MatchString(marker) {
		t.Errorf("marker %s", marker)
	}
	if m := topo.With(service("fifth")).Marker(); m == marker {
		t.Error("a fifth service does not change the marker")
	}
	topo.Services[0].Commands[0].Does = "take the order"
	if topo.Marker() != marker {
		t.Error("another word for a command changes the marker")
	}
}

func TestPermissionsAreNarrow(t *testing.T) {
	t.Parallel()
	p := topology.PermissionOf("orders")
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{p.Configure, "orders.in", false},
		{p.Configure, "x", false},
		{p.Write, "orders.events", true},
		{p.Write, "orders-events", false},
		{p.Write, "reorders.events", false},
		{p.Write, "orders.events2", false},
		{p.Write, "amq.default", false},
		{p.Write, "topology.fulfilment.0", false},
		{p.Read, "orders.in", true},
		{p.Read, "orders.dead", true},
		{p.Read, "payments.in", false},
		{p.Read, "orders.events", false},
		{p.Read, fulfilment.Topology().Marker(), true},
	} {
		if got := regexp.MustCompile(c.pattern).MatchString(c.name); got != c.want {
			t.Errorf("%s matches %s: %t", c.pattern, c.name, got)
		}
	}
}

func TestQuestionsAboutTheTopology(t *testing.T) {
	t.Parallel()
	topo := fulfilment.Topology()
	if got := topo.Subscribers("order.placed"); !slices.Equal(got, []string{"payments", "inventory",
		"shipping"}) {
		t.Errorf("order.placed is heard by %v", got)
	}
	if got := topo.Subscribers("stock.released"); got != nil {
		t.Errorf("stock.released is heard by %v", got)
	}
	if who, ok := topo.Publisher("stock.reserved"); !ok || who != "inventory" {
		t.Errorf("stock.reserved is said by %s", who)
	}
	if _, ok := topo.Publisher("x"); ok {
		t.Error("x has a publisher")
	}
	payments, _ := topo.Service("payments")
	if !payments.MayPublish("order.placed", "payment.captured") ||
		payments.MayPublish("order.cancelled", "payment.captured") {
		t.Error("payments may not say what it declares, or more than that")
	}
	orders, _ := topo.Service("orders")
	if !orders.MayPublish("orders.expire", "order.cancelled") ||
		orders.MayPublish("orders.expire", "order.placed") ||
		orders.MayPublish("orders.other", "order.placed") ||
		!orders.MayPublishFirst("order.placed") || orders.MayPublishFirst("order.confirmed") ||
		!service("a").MayPublish("a.go", "a.gone") {
		t.Error("commands may not say what they declare, or more than that")
	}
	if part := topo.Part("stranger"); len(part.Exchanges)+len(part.Queues)+len(part.Bindings) > 0 {
		t.Errorf("the part of a stranger: %+v", part)
	}
	for exchange, want := range map[string]string{"orders.events": "orders", ".events": "",
		"orders.in": "", "": ""} {
		if who, ok := topology.OwnerOf(exchange); ok != (want != "") || ok && who != want {
			t.Errorf("owner of %q: %q", exchange, who)
		}
	}
}
