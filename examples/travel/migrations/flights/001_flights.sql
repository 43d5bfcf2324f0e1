-- +goose Up
CREATE TABLE flights (
    name text    PRIMARY KEY,
    free integer NOT NULL CHECK (free >= 0)
);
INSERT INTO flights (name, free) VALUES ('BA1', 10), ('BA0', 0);

CREATE TABLE seats (
    trip   text PRIMARY KEY,
    flight text NOT NULL,
    state  text NOT NULL CHECK (state IN ('reserved', 'rejected', 'released', 'void'))
);

-- +goose Down
DROP TABLE seats;
DROP TABLE flights;
