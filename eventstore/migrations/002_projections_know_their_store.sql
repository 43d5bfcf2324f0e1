-- +goose Up
-- A projection stores from which events it was filled, so that one that is ahead of its events, as
-- after a restore, is detected at any time. The previous release writes none of these columns.
ALTER TABLE eventstore_projections
    ADD COLUMN store     text   NOT NULL DEFAULT '', -- database and table, by their ids; '' is unknown
    ADD COLUMN mark_seq  bigint NOT NULL DEFAULT 0,  -- the last event that was applied
    ADD COLUMN mark_hash bytea,                      -- the hash of that event; null if there is none
    ADD COLUMN note      text   NOT NULL DEFAULT '', -- why it was filled from the beginning again
    ADD COLUMN trouble   text   NOT NULL DEFAULT ''; -- why it makes no progress

-- +goose Down
ALTER TABLE eventstore_projections
    DROP COLUMN store, DROP COLUMN mark_seq, DROP COLUMN mark_hash, DROP COLUMN note, DROP COLUMN trouble;
