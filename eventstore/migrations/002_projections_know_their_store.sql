-- +goose Up
-- A projection knows the store that it was filled from, so that one that is ahead of its store, as
-- after a restore, is found at any time. The release before writes none of these columns.
ALTER TABLE eventstore_projections
    ADD COLUMN store     text   NOT NULL DEFAULT '', -- database and table, by their ids; '' is unknown
    ADD COLUMN mark_seq  bigint NOT NULL DEFAULT 0,  -- the last event that was applied
    ADD COLUMN mark_hash bytea,                      -- and its hash; null is none
    ADD COLUMN note      text   NOT NULL DEFAULT '', -- why it is filled from the beginning
    ADD COLUMN trouble   text   NOT NULL DEFAULT ''; -- why it stands still

-- +goose Down
ALTER TABLE eventstore_projections
    DROP COLUMN store, DROP COLUMN mark_seq, DROP COLUMN mark_hash, DROP COLUMN note, DROP COLUMN trouble;
