-- +goose Up
CREATE TABLE trips (
    id     text    PRIMARY KEY,
    amount bigint  NOT NULL CHECK (amount >= 0), -- minor units
    state  text    NOT NULL CHECK (state IN ('requested', 'paying', 'confirmed', 'cancelled')),
    room   boolean NOT NULL,
    seat   boolean NOT NULL,
    reason text    NOT NULL
);

-- +goose Down
DROP TABLE trips;
