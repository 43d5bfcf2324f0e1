-- +goose Up
-- One row for each event whose effect is in this database, or which waits in pending. The owner is
-- the service on whose exchange the event was published. Ids are unique per owner, so that no
-- service can use up the ids of another.
CREATE TABLE inbox (
    consumer   text        NOT NULL,
    owner      text        NOT NULL,
    event_id   uuid        NOT NULL,
    type       text        NOT NULL,
    handled_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, owner, event_id)
);

-- The events that wait: a failed event for its next attempt, a deadline for its time, a parked event
-- (due is null) for a person.
CREATE TABLE pending (
    consumer    text        NOT NULL,
    owner       text        NOT NULL,
    key         text        NOT NULL, -- the id of the event, or a hash of the message if it has no valid id
    type        text        NOT NULL,
    exchange    text        NOT NULL, -- empty for a deadline
    routing_key text        NOT NULL,
    attributes  json        NOT NULL, -- the envelope
    body        bytea       NOT NULL, -- the exact bytes of the message
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
