package boot

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"

	"github.com/quadrille-go/quadrille/topology"
)

// prefix begins the names of all settings.
const prefix = "QUADRILLE_"

// near is how many letters a name may differ from that of a setting to be taken for a misspelt one.
const near = 2

// known returns the names of all settings of the services, the simulators and the command line,
// since they may share one environment, with those that name a file.
func known(services ...string) []string {
	names := []string{
		"AMQP_URL", "MANAGEMENT_URL", "POSTGRES_URL", "TOKEN", "TOKENS_FILE", "LOG_LEVEL", "BREAKER_OPEN",
		"OUTBOX_KEEP",
		"ORDER_DEADLINE", "PAYMENTS_PROVIDER_URL", "SHIPPING_CARRIER_URL", "SHIPPING_COUNTRIES",
		"SIMULATORS_LISTEN", "SIMULATORS_URL",
		"SOAK", // the length of a test
	}
	for _, s := range topology.Fulfilment().Services {
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

// Misspelt judges the names in an environment, as os.Environ returns it. One that is nearly that of
// a setting is an error, since its value would be ignored. Others that begin like a setting are
// returned: they may belong to another release.
func Misspelt(environment []string, services ...string) (strange []string, err error) {
	names := known(services...)
	var errs []error
	for _, variable := range environment {
		name, _, _ := strings.Cut(variable, "=")
		if !strings.HasPrefix(name, prefix) || slices.Contains(names, name) ||
			strings.HasPrefix(name, prefix+"TEST_") {
			continue
		}
		nearest := slices.MinFunc(names, func(a, b string) int {
			return levenshtein.ComputeDistance(a, name) - levenshtein.ComputeDistance(b, name)
		})
		if levenshtein.ComputeDistance(nearest, name) <= near {
			errs = append(errs, fmt.Errorf("%s is no setting: did you mean %s?", name, nearest))
			continue
		}
		strange = append(strange, name)
	}
	return strange, errors.Join(errs...)
}
