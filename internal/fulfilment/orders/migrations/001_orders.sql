-- +goose Up
-- The order's own row decides the one race that has two right answers, cancel against confirm. An
-- order that was adopted, known only from an event about it, has no customer and no lines.
CREATE TABLE orders (
    order_id   uuid        PRIMARY KEY,
    state      text        NOT NULL CHECK (state IN ('placed', 'confirmed', 'cancelled')),
    reason     text        NOT NULL,
    customer   text        NOT NULL,
    currency   text        NOT NULL,
    amount     bigint      NOT NULL CHECK (amount >= 0), -- minor units
    lines      json        NOT NULL,
    address    json        NOT NULL,
    adopted    boolean     NOT NULL,
    placed_at  timestamptz NOT NULL,
    deadline   timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CHECK ((state = 'cancelled') = (reason <> ''))
);
CREATE INDEX orders_customer ON orders (customer, order_id);

-- +goose Down
DROP TABLE orders;
