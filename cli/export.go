package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/quadrille-go/quadrille/internal/export"
)

func exportCommand(e *Env) *cobra.Command {
	s := export.Source{Topology: e.App.Topology, Catalogue: e.App.Catalogue}
	var format string
	c := &cobra.Command{
		Use: "export", Short: "Write it in the format of another tool",
		Long: "Write the topology in the format of another tool:\n" +
			"  definitions  for rabbitmqctl import_definitions, into a broker without services yet\n" +
			"  k8s          for RabbitMQ's Messaging Topology Operator; then run topology apply, which " +
			"declares the marker\n" +
			"  asyncapi     AsyncAPI 3, with the schemas of the payloads\n" +
			"  schemas      JSON Schemas of the payloads\n" +
			"  events       every event, its services and its fields, in Markdown\n" +
			"  mermaid      a flowchart\n" +
			"  dot          a graph for Graphviz\n" +
			"  permissions  commands that set the permissions of the services' users",
		Example: "  " + e.App.Name + " topology export -o definitions > rabbitmq.json\n" +
			"  rabbitmqctl import_definitions rabbitmq.json\n  " +
			e.App.Name + " topology export -o dot | dot -Tsvg > topology.svg\n  " +
			e.App.Name + " topology export -o k8s --cluster rabbitmq | kubectl apply -f -",
		RunE: func(*cobra.Command, []string) error {
			text, err := export.Write(s, format)
			if err != nil {
				return usage(err)
			}
			t := NewText(e.Out)
			t.Lines("", text)
			return t.err
		},
	}
	c.Flags().StringVarP(&format, "output", "o", "mermaid", "one of "+
		strings.Join(export.Formats(), ", "))
	c.Flags().StringVar(&s.Vhost, "vhost", "/", "the virtual host")
	c.Flags().StringVar(&s.Cluster, "cluster", "rabbitmq", "for k8s: the name of the RabbitmqCluster")
	return c
}
