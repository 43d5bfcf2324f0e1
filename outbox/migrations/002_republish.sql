-- +goose Up
-- Requests of operators to publish events again, which the leader executes.
CREATE TABLE outbox_republish (
    id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    seqs         bigint[],            -- these rows, or
    since        timestamptz,         -- all rows since this time
    last_seq     bigint      NOT NULL, -- the last row at the time of the request
    reached      bigint      NOT NULL DEFAULT 0, -- the request is executed up to this row
    published    bigint      NOT NULL DEFAULT 0,
    refused      bigint      NOT NULL DEFAULT 0,
    reason       text        NOT NULL DEFAULT '', -- of the last refusal
    requested_at timestamptz NOT NULL DEFAULT now(),
    done_at      timestamptz,
    CHECK (num_nonnulls(seqs, since) = 1)
);
CREATE INDEX outbox_republish_open ON outbox_republish (id) WHERE done_at IS NULL;

-- +goose Down
DROP TABLE outbox_republish;
