package idempotency_test

import "testing/fstest"

// effects is a table in which each effect leaves a row.
var effects = fstest.MapFS{"001_effects.sql": {Data: []byte("-- +goose Up\nCREATE TABLE effects " +
	"(n bigint GENERATED ALWAYS AS IDENTITY);\n")}}
