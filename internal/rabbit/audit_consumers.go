package rabbit

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/quadrille-go/quadrille/topology"
)

// askDatabase is the statement with which an operator finds the database that an identity names.
const askDatabase = "SELECT system_identifier || '/' || oid FROM pg_control_system(), " +
	"pg_database WHERE datname = current_database()"

// subscription is a consumer as the management API lists it.
type subscription struct {
	Tag   string `json:"consumer_tag"`
	Queue struct {
		Name string `json:"name"`
	} `json:"queue"`
	Channel channelDetails `json:"channel_details"`
}

// channelDetails are the details of a channel, which the broker knows only after a while: until
// then they are an empty list instead of an object.
type channelDetails struct{ Connection string }

// UnmarshalJSON accepts both.
func (c *channelDetails) UnmarshalJSON(data []byte) error {
	if bytes.HasPrefix(data, []byte("[")) {
		return nil
	}
	var details struct {
		Connection string `json:"connection_name"`
	}
	err := json.Unmarshal(data, &details)
	c.Connection = details.Connection
	return err
}

// subscriptions lists the consumers of a virtual host. A broker that keeps no statistics does not
// list them, which is a finding.
func subscriptions(ctx context.Context, managementURL, vhost string) (all []subscription,
	found []Finding, err error) {
	err = list(ctx, managementURL, "/api/consumers/"+url.PathEscape(vhost), &all)
	var status statusError
	if errors.As(err, &status) && int(status) == http.StatusBadRequest {
		return nil, []Finding{{Kind: Extra, Object: "consumers",
			Detail: "the broker does not list them, so whether a queue has consumers of two databases " +
				"is unknown",
			Remedy: "set management.disable_stats = false"}}, nil
	}
	return all, found, err
}

// divided finds the queues that are consumed for two databases. Each of the two handles a part of
// the events, so neither knows all that has happened.
func divided(all []subscription, t topology.Topology) (found []Finding) {
	ours := map[string]bool{}
	for _, q := range t.Broker().Queues {
		ours[q.Name] = true
	}
	databases := map[string]map[string][]string{} // queue → identity → connections
	for _, s := range all {
		_, identity, known := strings.Cut(s.Tag, "@")
		if !known || !ours[s.Queue.Name] {
			continue
		}
		if databases[s.Queue.Name] == nil {
			databases[s.Queue.Name] = map[string][]string{}
		}
		of := databases[s.Queue.Name]
		of[identity] = append(of[identity], cmp.Or(s.Channel.Connection, "an unknown connection"))
	}
	for queue, of := range databases {
		if len(of) < 2 {
			continue
		}
		var details []string
		for _, identity := range slices.Sorted(maps.Keys(of)) {
			slices.Sort(of[identity])
			details = append(details, fmt.Sprintf("database %s through %s", identity,
				strings.Join(of[identity], ", ")))
		}
		found = append(found, Finding{
			Kind: Conflict, Object: "queue " + queue,
			Detail: fmt.Sprintf("it is consumed for %d databases, and each handles a part of its "+
				"events: %s",
				len(of), strings.Join(details, "; ")),
			Remedy: "stop the replicas of all databases but one, or give them a virtual host of their " +
				"own; " +
				askDatabase + " returns the identity of a database; restart replicas whose database " +
				"was restored or upgraded while they ran",
		})
	}
	return found
}
