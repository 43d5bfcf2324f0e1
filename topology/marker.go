package topology

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"regexp"
)

// DeclaresArg is the argument of a marker that lists the names of what was declared with it. It is
// the owner tag: nothing that no marker of a topology lists is ever removed for it. The list is not
// on the objects themselves, because a broker cannot change the arguments of what exists, and
// a binding with an argument is another binding.
const DeclaresArg = "x-quadrille-declares"

// maxDeclares bounds the list in bytes, since a declaration must fit into one frame of 128 KiB.
// What does not fit is not listed, and so it stays when a later version no longer needs it.
const maxDeclares = 64 << 10

// Marker is the name of the exchange that is declared last: where it exists, all of this topology
// has been declared, and nothing that is published can miss a queue that should get it.
func (t Topology) Marker() string {
	// plain strings and numbers, map keys sorted: it cannot fail
	canonical, _ := json.Marshal(t.Broker())
	sum := sha256.Sum256(canonical)
	return t.markers() + hex.EncodeToString(sum[:6])
}

// MarkerExchange returns the marker as it is declared, with the list of what it stands for.
func (t Topology) MarkerExchange() Exchange {
	list, size := []any{}, 0
	for _, name := range t.Broker().Names() {
		if size += len(name) + 5; size > maxDeclares { // a kind and a length on the wire
			break
		}
		list = append(list, name)
	}
	return Exchange{Name: t.Marker(), Kind: "fanout", Args: map[string]any{DeclaresArg: list}}
}

// IsMarker reports whether an exchange is a marker of t, in any version of t.
func (t Topology) IsMarker(exchange string) bool {
	return regexp.MustCompile("^" + regexp.QuoteMeta(t.markers()) + "[0-9a-f]{12}$").
		MatchString(exchange)
}

// markers is what the names of all markers of t begin with.
func (t Topology) markers() string { return "topology." + t.Name + "." }

// Names returns the names of all objects, each with its kind: "exchange a", "queue b" and, with
// exchange, key and queue, "binding a k b". No part of such a name contains a space.
func (b Broker) Names() []string {
	var names []string
	for _, e := range b.Exchanges {
		names = append(names, "exchange "+e.Name)
	}
	for _, q := range b.Queues {
		names = append(names, "queue "+q.Name)
	}
	for _, bind := range b.Bindings {
		names = append(names, "binding "+bind.Exchange+" "+bind.Key+" "+bind.Queue)
	}
	return names
}
