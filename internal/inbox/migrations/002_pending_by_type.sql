-- +goose Up
-- Due rows are found by their type: an old release must not claim a type that only a newer one
-- knows, and a deadline must not wait behind all calls that are due.
CREATE INDEX pending_due_type ON pending (consumer, type, due, key) WHERE due IS NOT NULL;
DROP INDEX pending_due;
-- The parked events.
CREATE INDEX pending_parked ON pending (consumer, created_at, key) WHERE due IS NULL;

-- +goose Down
CREATE INDEX pending_due ON pending (consumer, due) WHERE due IS NOT NULL;
DROP INDEX pending_due_type;
DROP INDEX pending_parked;
