-- +goose Up
-- The orders that have not ended, the oldest first, for a gauge of their ages.
CREATE INDEX orders_open ON orders (placed_at) WHERE state = 'placed';

-- +goose Down
DROP INDEX orders_open;
