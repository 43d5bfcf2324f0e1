-- +goose Up
-- The first eight bytes of the SHA-256 of an event's data: another body with a known id is not the
-- same event. It is null in rows of an older release, for which only the type is known.
ALTER TABLE inbox ADD COLUMN content bigint;
-- Malformed messages are counted for each owner before another one is stored.
CREATE INDEX pending_malformed ON pending (consumer, owner) WHERE due IS NULL AND key LIKE 'sha256:%';

-- +goose Down
DROP INDEX pending_malformed;
ALTER TABLE inbox DROP COLUMN content;
