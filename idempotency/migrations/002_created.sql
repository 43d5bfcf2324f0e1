-- +goose NO TRANSACTION
-- +goose Up
-- Old keys are found by their age. Replicas of the previous release write on while it is built.
CREATE INDEX CONCURRENTLY IF NOT EXISTS idempotency_keys_created ON idempotency_keys (created_at);

-- +goose Down
DROP INDEX IF EXISTS idempotency_keys_created;
