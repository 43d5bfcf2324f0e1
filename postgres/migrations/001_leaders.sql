-- +goose Up
-- The token of whoever leads for a purpose: raised by each new leader, and held by each write that
-- only the leader may do.
CREATE TABLE leaders (
    name  text        PRIMARY KEY,
    token bigint      NOT NULL,
    since timestamptz NOT NULL DEFAULT now()
);

-- +goose Down
DROP TABLE leaders;
