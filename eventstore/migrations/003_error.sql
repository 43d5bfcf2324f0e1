-- +goose Up
-- The column says why a projection stands still, under the name that it has in the program.
ALTER TABLE eventstore_projections RENAME COLUMN trouble TO error;

-- +goose Down
ALTER TABLE eventstore_projections RENAME COLUMN error TO trouble;
