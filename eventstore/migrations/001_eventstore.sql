-- +goose Up
-- The events of all streams. Each stream is numbered 1, 2, 3 … without a gap. Rows are not updated;
-- only a reset of the projections after a restore sets txid.
CREATE TABLE eventstore (
    seq         bigint      GENERATED ALWAYS AS IDENTITY (CACHE 1) PRIMARY KEY,
    txid        xid8        NOT NULL DEFAULT pg_current_xact_id(),
    stream      text        NOT NULL,
    version     bigint      NOT NULL CHECK (version > 0),
    id          uuid        NOT NULL,
    type        text        NOT NULL,
    payload     json        NOT NULL, -- json keeps the exact text, which is hashed; jsonb does not
    headers     json        NOT NULL,
    hash        bytea       NOT NULL, -- of the event and of the hash before it in the stream
    recorded_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (stream, version)
);
-- A reader of all streams in the order of commits reads its window through this index alone.
CREATE INDEX eventstore_window ON eventstore (txid, seq);

-- The head of each stream. Writers of one stream lock this row.
CREATE TABLE eventstore_streams (
    stream  text   PRIMARY KEY,
    version bigint NOT NULL CHECK (version > 0),
    hash    bytea  NOT NULL
);

-- A cache of folded states, which may be emptied at any time.
CREATE TABLE eventstore_snapshots (
    stream  text   PRIMARY KEY,
    version bigint NOT NULL,
    fold    int    NOT NULL, -- FoldVersion of the aggregate
    state   text   NOT NULL,
    hash    bytea  NOT NULL, -- of the event at this version
    sum     bytea  NOT NULL  -- a checksum of the other columns
);

-- The checkpoint of each projection, one row for each table that is being filled. Readers see the
-- table of the live row under the name of the projection.
CREATE TABLE eventstore_projections (
    name       text        NOT NULL,
    generation int         NOT NULL,
    version    int         NOT NULL, -- of its definition
    live       boolean     NOT NULL,
    system     text        NOT NULL, -- the identifier of the cluster whose transaction ids these are
    a          pg_snapshot NOT NULL, -- applied are all events visible in a, and of those visible in b the ones up to last_seq
    b          pg_snapshot NOT NULL,
    last_seq   bigint      NOT NULL,
    done       bigint      NOT NULL, -- number of events so far
    started_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (name, generation)
);
CREATE UNIQUE INDEX eventstore_projections_live ON eventstore_projections (name) WHERE live;
CREATE UNIQUE INDEX eventstore_projections_building ON eventstore_projections (name) WHERE NOT live;

-- +goose Down
DROP TABLE eventstore_projections;
DROP TABLE eventstore_snapshots;
DROP TABLE eventstore_streams;
DROP TABLE eventstore;
