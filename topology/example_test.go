package topology_test

import (
	"fmt"

	"github.com/quadrille-go/quadrille/fulfilment"
	"github.com/quadrille-go/quadrille/topology"
)

// A fifth service joins: what must be declared for it follows from what it hears.
func ExampleTopology_With() {
	topo := fulfilment.Topology().With(topology.Service{
		Name: "loyalty",
		Reacts: []topology.Reaction{{Handles: "order.confirmed", Does: "award points",
			Publishes: []string{"points.awarded"}}},
	})
	if err := topo.Validate(); err != nil {
		fmt.Println(err)
		return
	}
	part := topo.Part("loyalty")
	fmt.Println(part.Exchanges[0].Name)
	for _, b := range part.Bindings {
		fmt.Println(b.Exchange, "--", b.Key, "->", b.Queue)
	}
	fmt.Println(topology.PermissionOf("loyalty").Write)
	// Output:
	// loyalty.events
	// orders.events -- order.confirmed -> loyalty.in
	// ^loyalty\.events$
}

func ExampleTopology_Mermaid() {
	small := topology.Topology{Name: "small", Services: []topology.Service{
		{Name: "bell", Commands: []topology.Command{{Does: "ring", Publishes: []string{"bell.rung"}}}},
		{Name: "cat", Reacts: []topology.Reaction{{Handles: "bell.rung", Does: "wake"}}},
	}}
	fmt.Print(small.Mermaid())
	// Output:
	// flowchart LR
	//     bell([bell])
	//     cat([cat])
	//     bell -->|bell.rung: wake| cat
}

// Validate finds what does not fit together before anything is declared.
func ExampleTopology_Validate() {
	shop := topology.Topology{Name: "shop", Services: []topology.Service{{
		Name: "cards",
		Commands: []topology.Command{
			{Type: "cards.charged", Does: "capture", Publishes: []string{"payment.captured"}},
		},
		Calls: []topology.Call{{Type: "cards.charge", Does: "charge",
			Answers: []string{"cards.charged", "cards.declined"}}},
		Reacts: []topology.Reaction{{Handles: "order.placed", Does: "pay",
			Requests: []string{"cards.charge"}}},
	}}}
	fmt.Println(shop.Validate())
	// Output:
	// cards: charge is answered by "cards.declined", which is the type of no command of cards
	// cards handles "order.placed", which no service publishes
}
