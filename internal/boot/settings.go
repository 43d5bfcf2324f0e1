package boot

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"

	"github.com/quadrille-go/quadrille/fulfilment"
)

// prefix is the prefix of all settings.
const prefix = "QUADRILLE_"

// maxDistance is the maximum edit distance at which a name counts as a misspelt setting.
const maxDistance = 2

// known returns the names of all settings of the services, the simulators and the command line,
// which may share one environment. It includes the _FILE variables.
func known(services ...string) []string {
	names := []string{
		"AMQP_URL", "MANAGEMENT_URL", "POSTGRES_URL", "TOKEN", "TOKENS_FILE", "LOG_LEVEL", "BREAKER_OPEN",
		"OUTBOX_KEEP", "INBOX_KEEP", "IDEMPOTENCY_KEEP",
		"ORDER_DEADLINE", "PAYMENTS_PROVIDER_URL", "SHIPPING_CARRIER_URL", "SHIPPING_COUNTRIES",
		"SIMULATORS_LISTEN", "SIMULATORS_URL",
		"LISTEN_FD", // the descriptor of a socket that is already open
		"SOAK",      // selects the long version of a test
	}
	for _, s := range fulfilment.Topology().Services {
		services = append(services, s.Name)
	}
	for _, service := range services {
		for _, name := range []string{"DATABASE_URL", "LEADER_DATABASE_URL", "AMQP_URL", "URL", "URLS",
			"LISTEN"} {
			names = append(names, strings.ToUpper(service)+"_"+name)
		}
	}
	for i, name := range names {
		names[i] = prefix + name
		names = append(names, prefix+name+"_FILE")
	}
	return names
}

// Misspelt checks the names in an environment, in the form of os.Environ. A name that is nearly
// that of a setting is an error, because its value would be ignored. Other names with the prefix of
// settings are returned as unknown: they may belong to another release.
func Misspelt(environment []string, services ...string) (unknown []string, err error) {
	names := known(services...)
	var errs []error
	for _, variable := range environment {
		name, _, _ := strings.Cut(variable, "=")
		if !strings.HasPrefix(name, prefix) || slices.Contains(names, name) ||
			strings.HasPrefix(name, prefix+"TEST_") {
			continue
		}
		closest := slices.MinFunc(names, func(a, b string) int {
			return levenshtein.ComputeDistance(a, name) - levenshtein.ComputeDistance(b, name)
		})
		if levenshtein.ComputeDistance(closest, name) <= maxDistance {
			errs = append(errs, fmt.Errorf("%s is not a setting: did you mean %s?", name, closest))
			continue
		}
		unknown = append(unknown, name)
	}
	return unknown, errors.Join(errs...)
}
