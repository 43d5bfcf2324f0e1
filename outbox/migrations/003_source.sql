-- +goose Up
-- The source from which the leader reads committed rows: the window of two snapshots, or a stream of changes.
-- While it streams, a is a snapshot whose rows the stream has all settled.
ALTER TABLE outbox_cursor
    ADD COLUMN source   text    NOT NULL DEFAULT 'window' CHECK (source IN ('window', 'stream')), -- the wanted source
    ADD COLUMN streamed boolean NOT NULL DEFAULT false; -- the stream is in use, and its slot says how far it has come

-- +goose Down
ALTER TABLE outbox_cursor DROP COLUMN source, DROP COLUMN streamed;
