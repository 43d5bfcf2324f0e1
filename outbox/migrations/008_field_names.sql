-- +goose Up
-- The tables use the names of the program: a request to publish events again is a replay, and a row that can
-- never be published in its present form is quarantined.
ALTER TABLE outbox_republish RENAME TO outbox_replay;
ALTER INDEX outbox_republish_going RENAME TO outbox_replay_open;
ALTER TABLE outbox_held DROP CONSTRAINT outbox_held_kind_check;
UPDATE outbox_held SET kind = 'quarantined' WHERE kind = 'unsendable';
ALTER TABLE outbox_held ADD CONSTRAINT outbox_held_kind_check
    CHECK (kind IN ('refused', 'unroutable', 'quarantined', 'behind', 'unseen'));

-- +goose Down
ALTER TABLE outbox_held DROP CONSTRAINT outbox_held_kind_check;
UPDATE outbox_held SET kind = 'unsendable' WHERE kind = 'quarantined';
ALTER TABLE outbox_held ADD CONSTRAINT outbox_held_kind_check
    CHECK (kind IN ('refused', 'unroutable', 'unsendable', 'behind', 'unseen'));
ALTER INDEX outbox_replay_open RENAME TO outbox_republish_going;
ALTER TABLE outbox_replay RENAME TO outbox_republish;
