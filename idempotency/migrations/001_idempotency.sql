-- +goose Up
-- The answer to each completed request, stored in the transaction of its effect.
CREATE TABLE idempotency_keys (
    client      text        NOT NULL,
    key         text        NOT NULL,
    fingerprint bytea       NOT NULL, -- of the method, the path and the bytes of the body
    status      int         NOT NULL CHECK (status BETWEEN 200 AND 499),
    location    text        NOT NULL,
    body        bytea       NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (client, key)
);

-- +goose Down
DROP TABLE idempotency_keys;
