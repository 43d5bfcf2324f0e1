-- +goose Up
-- A request is done when all of its events were published again and confirmed. It may end without that.
ALTER TABLE outbox_republish
    ADD COLUMN held     bigint NOT NULL DEFAULT 0, -- rows that were not published because they are held
    ADD COLUMN ended_at timestamptz;
UPDATE outbox_republish SET ended_at = done_at, done_at = CASE WHEN refused = 0 THEN done_at END WHERE done_at IS NOT NULL;
CREATE INDEX outbox_republish_going ON outbox_republish (id) WHERE ended_at IS NULL;
DROP INDEX outbox_republish_open;

-- +goose Down
CREATE INDEX outbox_republish_open ON outbox_republish (id) WHERE done_at IS NULL;
UPDATE outbox_republish SET done_at = ended_at WHERE ended_at IS NOT NULL;
ALTER TABLE outbox_republish DROP COLUMN held, DROP COLUMN ended_at;
