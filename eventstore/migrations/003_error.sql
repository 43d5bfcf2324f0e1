-- +goose Up
-- The column has the reason why a projection makes no progress. It gets the name that the program
-- uses.
ALTER TABLE eventstore_projections RENAME COLUMN trouble TO error;

-- +goose Down
ALTER TABLE eventstore_projections RENAME COLUMN error TO trouble;
