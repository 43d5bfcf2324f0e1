package idempotency_test

import "testing/fstest"

// effects creates a table to which each effect adds a row.
var effects = fstest.MapFS{"001_effects.sql": {Data: []byte("-- +goose Up\nCREATE TABLE effects " +
	"(n bigint GENERATED ALWAYS AS IDENTITY);\n")}}
