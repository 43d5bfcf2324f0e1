package export_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/quadrille-go/quadrille/fulfilment"
	"github.com/quadrille-go/quadrille/internal/export"
	"github.com/quadrille-go/quadrille/internal/rabbit"
	"github.com/quadrille-go/quadrille/internal/servertest"
	"github.com/quadrille-go/quadrille/topology"
)

var update = flag.Bool("update", false, "write docs/events.md again")

func source() export.Source {
	return export.Source{Topology: fulfilment.Topology(), Catalogue: fulfilment.Catalogue(),
		Vhost: "/", Cluster: "broker"}
}

func write(t *testing.T, s export.Source, format string) string {
	t.Helper()
	text, err := export.Write(s, format)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func decode(t *testing.T, text string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatal(err)
	}
}

// RabbitMQ's own tool imports the definitions into a fresh broker, which is then applied.
func TestDefinitionsImportIntoAFreshBroker(t *testing.T) {
	t.Parallel()
	broker := servertest.Private(t)
	topo := fulfilment.Topology()
	steps, err := rabbit.Plan(t.Context(), broker.ManagementURL, broker.AMQPURL, topo)
	if err != nil || len(steps) == 0 {
		t.Fatalf("the broker is not fresh: %v, %v", steps, err)
	}
	file := filepath.Join(t.TempDir(), "definitions.json")
	if err := os.WriteFile(file, []byte(write(t, source(), "definitions")), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := broker.RabbitMQCtl(t.Context(), "import_definitions", file); err != nil {
		t.Fatal(err)
	}
	steps, err = rabbit.Plan(t.Context(), broker.ManagementURL, broker.AMQPURL, topo)
	if err != nil || len(steps) > 0 {
		t.Errorf("after the import: %+v, %v", steps, err)
	}
	session, err := rabbit.Open(t.Context(), broker.AMQPURL, "test")
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	if err := session.CheckApplied(topo); err != nil {
		t.Error(err)
	}
	next := topo // the marker has its list, so a later version knows what it may remove
	next.Services = next.Services[:3]
	next.Services[2].Reacts, next.Services[1].Reacts = nil, nil
	next.Services[0].Reacts = nil
	steps, err = rabbit.Plan(t.Context(), broker.ManagementURL, broker.AMQPURL, next)
	if err != nil || !strings.Contains(string(asJSON(t, steps)), "queue shipping.in") {
		t.Errorf("a version without shipping: %+v, %v", steps, err)
	}
}

func asJSON(t *testing.T, value any) []byte {
	t.Helper()
	data, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Each operation of the AsyncAPI document is one of the topology, and all references lead
// somewhere. The official parser reads it with `make asyncapi`.
func TestAsyncAPIHasWhatTheTopologyHas(t *testing.T) {
	t.Parallel()
	topo := fulfilment.Topology()
	var d struct {
		AsyncAPI   string
		Channels   map[string]map[string]any
		Operations map[string]struct {
			Action  string
			Channel struct {
				Ref string `json:"$ref"`
			}
		}
		Components struct {
			Messages map[string]struct {
				Payload map[string]any
			}
		}
	}
	text := write(t, source(), "asyncapi")
	decode(t, text, &d)
	if !strings.HasPrefix(d.AsyncAPI, "3.") || len(d.Channels) != len(topo.Types()) {
		t.Errorf("version %s, %d channels", d.AsyncAPI, len(d.Channels))
	}
	operations := 0
	for _, eventType := range topo.Types() {
		owner, _ := topo.Publisher(eventType)
		operations += 1 + len(topo.Subscribers(eventType))
		if d.Operations[owner+".send."+eventType].Action != "send" {
			t.Errorf("%s does not send %s", owner, eventType)
		}
		for _, name := range topo.Subscribers(eventType) {
			if d.Operations[name+".receive."+eventType].Action != "receive" {
				t.Errorf("%s does not receive %s", name, eventType)
			}
		}
		if d.Components.Messages[eventType].Payload["type"] != "object" {
			t.Errorf("%s has no payload", eventType)
		}
	}
	if len(d.Operations) != operations {
		t.Errorf("%d operations, want %d", len(d.Operations), operations)
	}
	var root any
	decode(t, text, &root)
	for _, m := range regexp.MustCompile(`"\$ref": "#/([^"]+)"`).FindAllStringSubmatch(text, -1) {
		at := root
		for part := range strings.SplitSeq(m[1], "/") {
			at = at.(map[string]any)[part]
		}
		if at == nil {
			t.Errorf("%s leads nowhere", m[1])
		}
	}
}

// The objects for Kubernetes have names that it accepts, and no marker, which must be the last.
func TestKubernetesObjectsAreComplete(t *testing.T) {
	t.Parallel()
	s := source()
	s.Topology = s.Topology.With(topology.Service{Name: "odd",
		Commands: []topology.Command{{Does: "a", Publishes: []string{"odd.a_b", "odd.a__b", "odd.-c"}}},
		Reacts: []topology.Reaction{{Handles: "odd.a_b", Does: "a"}, {Handles: "odd.a__b", Does: "b"},
			{Handles: "odd.-c", Does: "c"}}})
	var list struct {
		Items []struct {
			Kind     string
			Metadata struct{ Name string }
			Spec     map[string]any
		}
	}
	text := write(t, s, "k8s")
	decode(t, text, &list)
	b := s.Topology.Broker()
	if want := len(b.Names()) + len(s.Topology.Services); len(list.Items) != want {
		t.Errorf("%d objects, want %d", len(list.Items), want)
	}
	valid := regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)
	seen := map[string]bool{}
	for _, item := range list.Items {
		key := item.Kind + " " + item.Metadata.Name
		if !valid.MatchString(item.Metadata.Name) || seen[key] || item.Spec["vhost"] != "/" {
			t.Errorf("%+v", item)
		}
		seen[key] = true
	}
	if strings.Contains(text, s.Topology.Marker()) || !seen["Queue orders.in"] {
		t.Error("the marker is among the objects, or a queue is not")
	}
}

func TestDiagramsAndPermissions(t *testing.T) {
	t.Parallel()
	for format, want := range map[string][]string{
		"dot": {`"orders" -> "payments" [label="order.placed: capture", style=solid]`,
			`"inventory" -> "orders" [label="stock.rejected: cancel", style=dashed]`},
		"permissions": {`set_permissions -p '/' orders '^$' '^orders\.events$' '^(orders\.(in|dead)|`},
		"mermaid":     {fulfilment.Topology().Mermaid()},
	} {
		text := write(t, source(), format)
		for _, part := range want {
			if !strings.Contains(text, part) {
				t.Errorf("%s lacks %s:\n%s", format, part, text)
			}
		}
	}
	if _, err := export.Write(source(), "xml"); err == nil || !strings.Contains(err.Error(), "dot") {
		t.Errorf("an unknown format: %v", err)
	}
}

// docs/events.md lists the events that the services run on.
func TestEventsAreDocumented(t *testing.T) {
	t.Parallel()
	path := filepath.Join("..", "..", "docs", "events.md")
	want := write(t, source(), "events")
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil || string(got) != want {
		t.Errorf("docs/events.md is outdated (go test ./internal/export -update writes it): %v", err)
	}
}
