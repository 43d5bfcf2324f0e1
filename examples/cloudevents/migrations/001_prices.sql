-- +goose Up
CREATE TABLE prices (
    article    text        PRIMARY KEY,
    price      bigint      NOT NULL CHECK (price >= 0), -- minor units
    changed_at timestamptz NOT NULL,
    changes    bigint      NOT NULL -- how many events were counted
);

-- +goose Down
DROP TABLE prices;
