-- +goose Up
-- The service that owns the database. A second service would share its locks, its outbox and its
-- inbox.
CREATE TABLE database_owner (
    one   boolean     PRIMARY KEY DEFAULT true CHECK (one),
    name  text        NOT NULL,
    since timestamptz NOT NULL DEFAULT now()
);

-- +goose Down
DROP TABLE database_owner;
