-- +goose Up
-- A stream has rows whose commit still waits for a synchronous standby: no query sees them yet, and they
-- must be held all the same. What is held is not deleted from the outbox in any case.
ALTER TABLE outbox_held DROP CONSTRAINT outbox_held_seq_fkey;

-- +goose Down
ALTER TABLE outbox_held ADD CONSTRAINT outbox_held_seq_fkey FOREIGN KEY (seq) REFERENCES outbox (seq);
