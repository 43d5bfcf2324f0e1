-- +goose Up
-- One row for every order that was heard of. "waiting" lacks the address, the reservation or both;
-- "void" is a tombstone: a cancellation that came before its action, and blocks it.
CREATE TABLE shipments (
    order_id   uuid        PRIMARY KEY,
    state      text        NOT NULL CHECK (state IN ('waiting', 'scheduled', 'failed', 'cancelled', 'void')),
    reserved   boolean     NOT NULL,
    address    json        NOT NULL,
    reason     text        NOT NULL,
    updated_at timestamptz NOT NULL
);

-- +goose Down
DROP TABLE shipments;
