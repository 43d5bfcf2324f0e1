-- +goose Up
-- How the leader finds what was committed: through the window of two snapshots, or through a stream
-- of changes. While it streams, a is a left edge behind what the stream has settled.
ALTER TABLE outbox_cursor
    ADD COLUMN source   text    NOT NULL DEFAULT 'window' CHECK (source IN ('window', 'stream')), -- what is wanted
    ADD COLUMN streamed boolean NOT NULL DEFAULT false; -- the stream's own place is the truth

-- +goose Down
ALTER TABLE outbox_cursor DROP COLUMN source, DROP COLUMN streamed;
