package export

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"

	"github.com/quadrille-go/quadrille/topology"
)

type object = map[string]any

// definitions is what `rabbitmqctl import_definitions` reads. It includes the marker, so a broker
// that has imported it is applied. It has no users: their passwords are not the topology's.
func (s Source) definitions() object {
	b := s.Topology.Broker()
	exchanges, queues, bindings := []object{}, []object{}, []object{}
	for _, e := range append(b.Exchanges, s.Topology.MarkerExchange()) {
		exchanges = append(exchanges, object{"name": e.Name, "vhost": s.Vhost, "type": e.Kind,
			"durable": true, "auto_delete": false, "internal": false, "arguments": arguments(e.Args)})
	}
	for _, q := range b.Queues {
		queues = append(queues, object{"name": q.Name, "vhost": s.Vhost, "durable": true,
			"auto_delete": false, "arguments": arguments(q.Args)})
	}
	for _, bind := range b.Bindings {
		bindings = append(bindings, object{"source": bind.Exchange, "vhost": s.Vhost,
			"destination": bind.Queue, "destination_type": "queue", "routing_key": bind.Key,
			"arguments": object{}})
	}
	return object{"vhosts": []object{{"name": s.Vhost}}, "exchanges": exchanges, "queues": queues,
		"bindings": bindings}
}

func arguments(args map[string]any) map[string]any {
	if args == nil {
		return object{}
	}
	return args
}

// permissions are commands for an operator, one for each service.
func (s Source) permissions() string {
	var b strings.Builder
	for _, service := range s.Topology.Services {
		p := topology.PermissionOf(service.Name)
		fmt.Fprintf(&b, "rabbitmqctl set_permissions -p '%s' %s '%s' '%s' '%s'\n", s.Vhost, service.Name,
			p.Configure, p.Write, p.Read)
	}
	return b.String()
}

// kubernetes are objects of the Messaging Topology Operator. The marker is not among them: the
// operator creates objects in any order, and the marker must be the last.
func (s Source) kubernetes() object {
	b := s.Topology.Broker()
	var items []object
	add := func(kind, name string, spec object) {
		spec["vhost"] = s.Vhost
		spec["rabbitmqClusterReference"] = object{"name": s.Cluster}
		items = append(items, object{"apiVersion": "rabbitmq.com/v1beta1", "kind": kind,
			"metadata": object{"name": resourceName(name),
				"labels": object{"app.kubernetes.io/part-of": s.Topology.Name}}, "spec": spec})
	}
	for _, e := range b.Exchanges {
		add("Exchange", e.Name, object{"name": e.Name, "type": e.Kind, "durable": true,
			"autoDelete": false})
	}
	for _, q := range b.Queues {
		add("Queue", q.Name, object{"name": q.Name, "type": q.Args["x-queue-type"], "durable": true,
			"autoDelete": false, "arguments": q.Args})
	}
	for _, bind := range b.Bindings {
		add("Binding", bind.Queue+"."+bind.Key, object{"source": bind.Exchange,
			"destination": bind.Queue, "destinationType": "queue", "routingKey": bind.Key})
	}
	for _, service := range s.Topology.Services {
		p := topology.PermissionOf(service.Name)
		add("Permission", service.Name, object{"user": service.Name, "permissions": object{
			"configure": p.Configure, "write": p.Write, "read": p.Read}})
	}
	return object{"apiVersion": "v1", "kind": "List", "items": items}
}

// maxResource is the length that a name of Kubernetes may have.
const maxResource = 253

var unfit = regexp.MustCompile(`[^a-z0-9.-]|^[.-]|[.-]$|\.-|-\.|\.\.`)

// resourceName returns a name that Kubernetes accepts. A name that had to be changed ends with
// a part of its hash, so that no two become the same.
func resourceName(name string) string {
	if len(name) <= maxResource && !unfit.MatchString(name) {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	fitted := strings.Trim(regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(name, "-"), "-")
	return fitted[:min(len(fitted), maxResource-9)] + "-" + hex.EncodeToString(sum[:4])
}
