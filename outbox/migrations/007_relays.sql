-- +goose Up
-- The relays that run, leading or standing by: each writes its own row. How long history is kept goes by the
-- longest that any of them wants; see outbox.keepMemory.
CREATE TABLE outbox_relays (
    id         uuid        PRIMARY KEY, -- of a process's relay
    name       text        NOT NULL,    -- of its service
    host       text        NOT NULL,
    pid        int         NOT NULL,
    keep       float8      NOT NULL,    -- seconds that history stays
    token      bigint      NOT NULL DEFAULT 0, -- of its lead; 0: it stands by
    started_at timestamptz NOT NULL DEFAULT now(),
    seen_at    timestamptz NOT NULL DEFAULT now()
);
-- Replicas of an earlier release do not say what they want. For a day, nothing younger than the default goes.
INSERT INTO outbox_relays (id, name, host, pid, keep) VALUES ('00000000-0000-0000-0000-000000000000', 'an earlier release', '', 0, 14 * 24 * 3600);

-- +goose Down
DROP TABLE outbox_relays;
