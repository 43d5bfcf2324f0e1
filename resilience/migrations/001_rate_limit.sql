-- +goose Up
-- The time from which the next call of each key conforms to the rate (generic cell rate algorithm).
-- The table is unlogged: no call waits for a disk, and after a crash of the server all buckets are
-- full.
CREATE UNLOGGED TABLE rate_limit (
    key  text        PRIMARY KEY,
    next timestamptz NOT NULL
);

-- +goose Down
DROP TABLE rate_limit;
