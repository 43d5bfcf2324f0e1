package main

import (
	"embed"
	"io/fs"

	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/consumer"
)

//go:embed migrations
var migrations embed.FS

// newService returns a service of the choreography. The setting has its addresses.
func newService(name string, setting func(name string) string, log zerolog.Logger,
	handlers ...consumer.Handler) (*quadrille.Service, error) {
	files, err := fs.Sub(migrations, "migrations/"+name)
	if err != nil {
		return nil, err
	}
	return quadrille.New(quadrille.Config{
		Name:       name,
		Topology:   choreography(),
		Handlers:   handlers,
		Database:   setting(name),
		AMQP:       setting("amqp"),
		Migrations: map[string]fs.FS{name: files},
		Log:        log.With().Str("service", name).Logger(),
	})
}

// newServices returns the three services.
func newServices(setting func(name string) string, log zerolog.Logger) (
	map[string]*quadrille.Service, error) {
	payments := &provider{taken: map[string]int64{}}
	handlers := map[string][]consumer.Handler{
		"trips":   {trips().Handler(), consumer.Call(payments.pay)},
		"hotels":  {hotels().Handler()},
		"flights": {flights().Handler()},
	}
	services := map[string]*quadrille.Service{}
	for name, list := range handlers {
		service, err := newService(name, setting, log, list...)
		if err != nil {
			return nil, err
		}
		services[name] = service
	}
	return services, nil
}
