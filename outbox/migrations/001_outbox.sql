-- +goose Up
-- Debezium's outbox event router expects the columns id, aggregatetype, aggregateid, type and payload.
-- Rows are never updated: what the relay has published is in outbox_cursor and outbox_held.
CREATE TABLE outbox (
    seq           bigint      GENERATED ALWAYS AS IDENTITY (CACHE 1) PRIMARY KEY, -- the order in which the relay publishes a window
    txid          xid8        NOT NULL DEFAULT pg_current_xact_id(),
    id            uuid        NOT NULL,
    aggregatetype text        NOT NULL,
    aggregateid   text        NOT NULL,
    type          text        NOT NULL,
    payload       json        NOT NULL, -- not jsonb, which would change the text that was published
    headers       json        NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now()
);

-- The relay finds the rows of a window through this index alone.
CREATE INDEX outbox_window ON outbox (txid, seq);
-- History reads the events of one aggregate.
CREATE INDEX outbox_aggregate ON outbox (aggregateid);

-- How far the relay has come: every row that is visible in snapshot a is settled, and of the rows that are
-- visible in b but not in a those up to last_seq are. The table has one row, which is updated as a whole.
CREATE TABLE outbox_cursor (
    one      boolean     PRIMARY KEY DEFAULT true CHECK (one),
    epoch    bigint      NOT NULL, -- the token of the leader; a write with an older token changes nothing
    system   text        NOT NULL, -- the identifier of the cluster that the transaction ids belong to
    a        pg_snapshot NOT NULL,
    b        pg_snapshot NOT NULL,
    last_seq bigint      NOT NULL,
    txid     xid8        NOT NULL DEFAULT pg_current_xact_id() -- of the writer; the copy of a restore has another xmin
);
INSERT INTO outbox_cursor (epoch, system, a, b, last_seq)
SELECT 0, system_identifier::text, '3:3:', '3:3:', 0 FROM pg_control_system();

-- Rows that the cursor has passed but the broker has not confirmed. They are published again in their order,
-- and later rows of their aggregates are held behind them.
CREATE TABLE outbox_held (
    seq       bigint      PRIMARY KEY REFERENCES outbox (seq),
    aggregate text        NOT NULL,
    reason    text        NOT NULL,
    attempts  int         NOT NULL,
    due       timestamptz NOT NULL -- infinity: the relay does not retry it by itself
);
CREATE INDEX outbox_held_aggregate ON outbox_held (aggregate, seq);

-- +goose Down
DROP TABLE outbox_held;
DROP TABLE outbox_cursor;
DROP TABLE outbox;
