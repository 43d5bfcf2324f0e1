-- +goose Up
-- The relays that run, the leader and the standbys; each writes its own row. Published events are kept for as
-- long as any of these relays wants, also for some time after that relay has ended.
CREATE TABLE outbox_relays (
    id         uuid        PRIMARY KEY, -- of the relay, new with each start
    name       text        NOT NULL,    -- of the service
    host       text        NOT NULL,
    pid        int         NOT NULL,
    keep       float8      NOT NULL,    -- seconds for which it wants to keep published events
    token      bigint      NOT NULL DEFAULT 0, -- of the lead; 0: the relay stands by
    started_at timestamptz NOT NULL DEFAULT now(),
    seen_at    timestamptz NOT NULL DEFAULT now()
);
-- Replicas of an earlier release have no row. For a day, this row keeps what they may want to keep: the default.
INSERT INTO outbox_relays (id, name, host, pid, keep) VALUES ('00000000-0000-0000-0000-000000000000', 'an earlier release', '', 0, 14 * 24 * 3600);

-- +goose Down
DROP TABLE outbox_relays;
