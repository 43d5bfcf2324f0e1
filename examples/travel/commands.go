package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/cli"
	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
)

// commands are the program's own, next to those of package cli.
func commands(env *cli.Env) []*cobra.Command {
	var listen string
	serve := &cobra.Command{Use: "serve", Short: "Run the three services until Ctrl-C",
		RunE: func(c *cobra.Command, _ []string) error { return serve(c.Context(), listen) }}
	serve.Flags().StringVar(&listen, "listen", "127.0.0.1:8080", "the address of the HTTP server")
	var b Book
	book := &cobra.Command{Use: "book", Short: "Book a trip and print its id",
		RunE: func(c *cobra.Command, _ []string) error {
			b.Trip = events.NewID()
			if err := env.Call(c.Context(), "trips", http.MethodPost, "/", nil, b, nil); err != nil {
				return err
			}
			return env.Print(map[string]string{"trip": b.Trip},
				func(t *cli.Text) { t.Printf("%s\n", b.Trip) })
		}}
	book.Flags().StringVar(&b.Hotel, "hotel", "", "the hotel")
	book.Flags().StringVar(&b.Flight, "flight", "", "the flight")
	book.Flags().Int64Var(&b.Amount, "amount", 0, "the amount in minor units")
	return []*cobra.Command{serve, book}
}

// settingOf returns an address from the environment.
func settingOf(name string) string { return os.Getenv(variable(name)) }

// variable is the environment variable with an address.
func variable(name string) string {
	if name == "amqp" {
		return "QUADRILLE_AMQP_URL"
	}
	return "QUADRILLE_" + strings.ToUpper(name) + "_DATABASE_URL"
}

// complete refuses an environment without an address that the services need.
func complete(setting func(name string) string) error {
	for _, name := range []string{"amqp", "trips", "hotels", "flights"} {
		if setting(name) == "" {
			return cli.Error{Code: cli.ExitUsage, Err: fmt.Errorf("%s is not set", variable(name)),
				Next: "start servers: quadrille up --servers --detach --database trips,hotels,flights\n" +
					"then: . .quadrille/env"}
		}
	}
	return nil
}

// serve runs the services and their HTTP server until ctx is done.
func serve(ctx context.Context, listen string) error {
	if err := complete(settingOf); err != nil {
		return err
	}
	log := zerolog.New(os.Stderr).With().Timestamp().Logger()
	services, err := newServices(settingOf, log)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	mux := http.NewServeMux()
	mux.Handle("POST /trips/{$}", booking(services["trips"]))
	var running sync.WaitGroup
	for name, s := range services {
		mux.Handle("/"+name+"/admin/", http.StripPrefix("/"+name, s.Admin()))
		running.Go(func() {
			if err := s.Run(ctx); err != nil {
				stop(err)
			}
			_ = s.Close()
		})
	}
	server := &http.Server{Addr: listen, Handler: mux}
	running.Go(func() {
		<-ctx.Done()
		_ = server.Close()
	})
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		stop(err)
	}
	running.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// booking executes the command Book. A refusal is an answer, not a fault.
func booking(service *quadrille.Service) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var command Book
		if err := json.NewDecoder(r.Body).Decode(&command); err != nil {
			problem(w, http.StatusBadRequest, err)
			return
		}
		state, err := quadrille.Execute(r.Context(), service, trips(), command)
		var refusal *consumer.Refusal
		switch {
		case errors.As(err, &refusal):
			problem(w, http.StatusConflict, refusal)
		case errors.Is(err, events.ErrMalformed):
			problem(w, http.StatusBadRequest, err)
		case err != nil:
			problem(w, http.StatusServiceUnavailable, err)
		default:
			trip, _ := state.Trips.Get(command.Trip)
			_ = json.NewEncoder(w).Encode(trip)
		}
	})
}

// problem answers with the problem details of RFC 9457, whose detail the command line prints.
func problem(w http.ResponseWriter, status int, err error) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"status": status, "detail": err.Error()})
}
