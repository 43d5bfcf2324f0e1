-- +goose Up
-- The token of the leader for each name. Each new leader raises it, and each write that only the
-- leader may do locks and checks it.
CREATE TABLE leaders (
    name  text        PRIMARY KEY,
    token bigint      NOT NULL,
    since timestamptz NOT NULL DEFAULT now()
);

-- +goose Down
DROP TABLE leaders;
