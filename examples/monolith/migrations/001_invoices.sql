-- +goose Up
CREATE TABLE invoices (
    id       uuid   PRIMARY KEY,
    customer text   NOT NULL,
    amount   bigint NOT NULL CHECK (amount > 0) -- minor units
);

-- +goose Down
DROP TABLE invoices;
