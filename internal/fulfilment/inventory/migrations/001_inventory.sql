-- +goose Up
-- Free, set aside and sold: together they are what was ever received.
CREATE TABLE stock (
    sku       text   PRIMARY KEY,
    received  bigint NOT NULL,
    on_hand   bigint NOT NULL CHECK (on_hand >= 0),
    reserved  bigint NOT NULL CHECK (reserved >= 0),
    committed bigint NOT NULL CHECK (committed >= 0),
    CHECK (on_hand + reserved + committed = received)
);

-- One row for every order that was heard of. "waiting" lacks the lines, the payment or both; "void"
-- is a tombstone: a compensation that came before its action, and blocks it.
CREATE TABLE reservations (
    order_id   uuid        PRIMARY KEY,
    state      text        NOT NULL CHECK (state IN ('waiting', 'reserved', 'rejected', 'released', 'committed', 'void')),
    paid       boolean     NOT NULL,
    confirmed  boolean     NOT NULL,
    lines      json        NOT NULL,
    reason     text        NOT NULL,
    updated_at timestamptz NOT NULL
);

-- +goose Down
DROP TABLE reservations;
DROP TABLE stock;
