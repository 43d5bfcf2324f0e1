-- +goose Up
-- Requests of operators to publish again what was published: the leader executes them.
CREATE TABLE outbox_republish (
    id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    seqs         bigint[],            -- these rows,
    since        timestamptz,         -- or all that were said since then
    last_seq     bigint      NOT NULL, -- up to here; what comes later is new
    reached      bigint      NOT NULL DEFAULT 0, -- up to here it is done
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
