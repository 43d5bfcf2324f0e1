-- +goose Up
-- What is due is looked for by its type: an old release must not take what only a newer one knows, nor
-- a deadline wait behind all the outside calls that are due.
CREATE INDEX pending_due_type ON pending (consumer, type, due, key) WHERE due IS NOT NULL;
DROP INDEX pending_due;
-- What waits for a person.
CREATE INDEX pending_parked ON pending (consumer, created_at, key) WHERE due IS NULL;

-- +goose Down
CREATE INDEX pending_due ON pending (consumer, due) WHERE due IS NOT NULL;
DROP INDEX pending_due_type;
DROP INDEX pending_parked;
