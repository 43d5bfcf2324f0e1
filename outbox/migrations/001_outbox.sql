-- +goose Up
-- The columns id, aggregatetype, aggregateid, type and payload are those that Debezium's outbox
-- event router expects. Rows are never updated: the relay keeps its place in outbox_cursor.
CREATE TABLE outbox (
    seq           bigint      GENERATED ALWAYS AS IDENTITY (CACHE 1) PRIMARY KEY, -- the relay's order
    txid          xid8        NOT NULL DEFAULT pg_current_xact_id(),
    id            uuid        NOT NULL,
    aggregatetype text        NOT NULL,
    aggregateid   text        NOT NULL,
    type          text        NOT NULL,
    payload       json        NOT NULL, -- not jsonb: what was said is kept to the letter
    headers       json        NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now()
);

-- The relay finds the rows of a window through this index alone.
CREATE INDEX outbox_window ON outbox (txid, seq);
-- The story of one aggregate.
CREATE INDEX outbox_aggregate ON outbox (aggregateid);

-- Where the relay is: everything visible in a has been settled, and of what is visible in b but not
-- in a, everything up to last_seq. One row, replaced whole.
CREATE TABLE outbox_cursor (
    one      boolean     PRIMARY KEY DEFAULT true CHECK (one),
    epoch    bigint      NOT NULL, -- raised by every new leader; no write of an older one counts
    system   text        NOT NULL, -- the identifier of the cluster whose transaction ids these are
    a        pg_snapshot NOT NULL,
    b        pg_snapshot NOT NULL,
    last_seq bigint      NOT NULL,
    txid     xid8        NOT NULL DEFAULT pg_current_xact_id() -- the writer's: a copy is known by its other xmin
);
INSERT INTO outbox_cursor (epoch, system, a, b, last_seq)
SELECT 0, system_identifier::text, '3:3:', '3:3:', 0 FROM pg_control_system();

-- Rows that the cursor has passed but the broker has not taken: published again, in their order,
-- while the later rows of their aggregate wait behind them here.
CREATE TABLE outbox_held (
    seq       bigint      PRIMARY KEY REFERENCES outbox (seq),
    aggregate text        NOT NULL,
    reason    text        NOT NULL,
    attempts  int         NOT NULL,
    due       timestamptz NOT NULL -- infinity: it can never be published as it is
);
CREATE INDEX outbox_held_aggregate ON outbox_held (aggregate, seq);

-- +goose Down
DROP TABLE outbox_held;
DROP TABLE outbox_cursor;
DROP TABLE outbox;
