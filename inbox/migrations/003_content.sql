-- +goose Up
-- The first eight bytes of the SHA-256 of what an event said: another body under a known id is not the
-- same event. It is null in rows of an older release, of which only the type is known.
ALTER TABLE inbox ADD COLUMN content bigint;
-- What strangers sent is counted by its source before more of it is kept.
CREATE INDEX pending_malformed ON pending (consumer, owner) WHERE due IS NULL AND key LIKE 'sha256:%';

-- +goose Down
DROP INDEX pending_malformed;
ALTER TABLE inbox DROP COLUMN content;
