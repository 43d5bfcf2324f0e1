-- +goose Up
-- One row for every event whose effect is in this database, or waits in pending. The owner is the
-- service whose exchange the event came through: ids are unique per owner, and nobody can use up the
-- ids of somebody else.
CREATE TABLE inbox (
    consumer   text        NOT NULL,
    owner      text        NOT NULL,
    event_id   uuid        NOT NULL,
    type       text        NOT NULL,
    handled_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, owner, event_id)
);

-- What waits: a failed event for its next attempt, a deadline for its hour, a parked event for
-- a person (due is null).
CREATE TABLE pending (
    consumer    text        NOT NULL,
    owner       text        NOT NULL,
    key         text        NOT NULL, -- the event's id; of input without one, a hash of what came
    type        text        NOT NULL,
    exchange    text        NOT NULL, -- empty for a deadline
    routing_key text        NOT NULL,
    attributes  json        NOT NULL, -- the envelope
    body        bytea       NOT NULL, -- what came, to the byte
    attempts    int         NOT NULL,
    due         timestamptz,
    reason      text        NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, owner, key)
);
CREATE INDEX pending_due ON pending (consumer, due) WHERE due IS NOT NULL;

-- +goose Down
DROP TABLE pending;
DROP TABLE inbox;
