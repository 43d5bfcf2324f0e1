-- +goose Up
-- What operators did to parked rows, on record. A discarded row is kept here as a whole.
CREATE TABLE repairs (
    id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    consumer   text        NOT NULL,
    owner      text        NOT NULL,
    key        text        NOT NULL,
    type       text        NOT NULL,
    action     text        NOT NULL CHECK (action IN ('redrive', 'discard')),
    operator   text        NOT NULL, -- who did it
    reason     text        NOT NULL, -- why, in the operator's words
    parked_for text        NOT NULL, -- the reason for which the row was parked
    discarded  json,                 -- the row, if it was discarded
    at         timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX repairs_consumer ON repairs (consumer, id);
CREATE INDEX repairs_key ON repairs (consumer, owner, key);

-- +goose Down
DROP TABLE repairs;
