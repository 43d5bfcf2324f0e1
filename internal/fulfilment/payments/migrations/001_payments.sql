-- +goose Up
CREATE TABLE accounts (
    customer  text   PRIMARY KEY,
    currency  text   NOT NULL,
    deposited bigint NOT NULL, -- minor units, ever
    balance   bigint NOT NULL CHECK (balance BETWEEN 0 AND deposited)
);

-- One row for every order that was heard of: what became of its payment. "void" is a tombstone:
-- a compensation that came before its action, and blocks it.
CREATE TABLE payments (
    order_id   uuid        PRIMARY KEY,
    state      text        NOT NULL CHECK (state IN ('captured', 'declined', 'refunded', 'void')),
    customer   text        NOT NULL,
    currency   text        NOT NULL,
    amount     bigint      NOT NULL CHECK (amount >= 0),
    reason     text        NOT NULL,
    updated_at timestamptz NOT NULL,
    CHECK ((state IN ('captured', 'refunded')) <= (amount > 0))
);

-- +goose Down
DROP TABLE payments;
DROP TABLE accounts;
