-- +goose Up
-- A stream delivers rows whose commit still waits for a synchronous standby. No query sees them yet, so
-- a foreign key would refuse to hold them. The retention does not delete held rows from the outbox in any case.
ALTER TABLE outbox_held DROP CONSTRAINT outbox_held_seq_fkey;

-- +goose Down
ALTER TABLE outbox_held ADD CONSTRAINT outbox_held_seq_fkey FOREIGN KEY (seq) REFERENCES outbox (seq);
