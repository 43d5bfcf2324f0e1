-- +goose Up
-- The one service that the database belongs to. Another would share its locks, its outbox and its inbox.
CREATE TABLE quadrille_service (
    one   boolean     PRIMARY KEY DEFAULT true CHECK (one),
    name  text        NOT NULL,
    since timestamptz NOT NULL DEFAULT now()
);

-- +goose Down
DROP TABLE quadrille_service;
