-- +goose Up
-- When the next call of each key would be on time (generic cell rate algorithm). Unlogged: after a crash
-- of the server all buckets are full, and no call waits for a disk.
CREATE UNLOGGED TABLE rate_limit (
    key  text        PRIMARY KEY,
    next timestamptz NOT NULL
);

-- +goose Down
DROP TABLE rate_limit;
