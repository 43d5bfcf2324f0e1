package rabbit

import (
	"context"
	"fmt"
	"net/url"
)

// Depths returns how many messages each queue of the virtual host of a broker's URL has, delivered
// ones that are not acknowledged included, as the management API counted them some seconds ago.
func Depths(ctx context.Context, managementURL, brokerURL string) (map[string]int64, error) {
	uri, err := parseURL(addresses(brokerURL)[0])
	if err != nil {
		return nil, err
	}
	var queues []struct {
		Name     string
		Messages int64
	}
	path := "/api/queues/" + url.PathEscape(uri.Vhost) + "?columns=name,messages"
	if err := listAgain(ctx, managementURL, path, &queues); err != nil {
		return nil, fmt.Errorf("read the depths of queues: %w", err)
	}
	depths := map[string]int64{}
	for _, q := range queues {
		depths[q.Name] = q.Messages
	}
	return depths, nil
}
