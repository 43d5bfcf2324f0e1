-- +goose Up
CREATE TABLE points (
    order_id uuid   PRIMARY KEY,
    points   bigint NOT NULL CHECK (points > 0)
);

-- +goose Down
DROP TABLE points;
