-- +goose Up
CREATE TABLE hotels (
    name text    PRIMARY KEY,
    free integer NOT NULL CHECK (free >= 0)
);
INSERT INTO hotels (name, free) VALUES ('ritz', 10), ('full', 0);

CREATE TABLE rooms (
    trip  text PRIMARY KEY,
    hotel text NOT NULL,
    state text NOT NULL CHECK (state IN ('reserved', 'rejected', 'released', 'void'))
);

-- +goose Down
DROP TABLE rooms;
DROP TABLE hotels;
