-- +goose Up
-- What has happened, by streams: each is numbered 1, 2, 3 … without a gap. Rows are never updated.
CREATE TABLE eventstore (
    seq         bigint      GENERATED ALWAYS AS IDENTITY (CACHE 1) PRIMARY KEY,
    txid        xid8        NOT NULL DEFAULT pg_current_xact_id(),
    stream      text        NOT NULL,
    version     bigint      NOT NULL CHECK (version > 0),
    id          uuid        NOT NULL,
    type        text        NOT NULL,
    payload     json        NOT NULL, -- not jsonb: what was written is kept to the letter, and hashed
    headers     json        NOT NULL,
    hash        bytea       NOT NULL, -- of the event and of the hash before it in the stream
    recorded_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (stream, version)
);
-- Who reads all of it in the order of commits finds a window through this index alone.
CREATE INDEX eventstore_window ON eventstore (txid, seq);

-- Where each stream ends. The row is what writers of one stream meet on.
CREATE TABLE eventstore_streams (
    stream  text   PRIMARY KEY,
    version bigint NOT NULL CHECK (version > 0),
    hash    bytea  NOT NULL
);

-- A cache of folds: it may be emptied at any time.
CREATE TABLE eventstore_snapshots (
    stream  text   PRIMARY KEY,
    version bigint NOT NULL,
    fold    int    NOT NULL, -- the version of the function that made the state
    state   text   NOT NULL,
    hash    bytea  NOT NULL, -- of the event that it was taken after
    sum     bytea  NOT NULL  -- of all of this
);

-- How far each projection has come: one row for each table that is being filled. The one that is live
-- is what readers see under the name of the projection.
CREATE TABLE eventstore_projections (
    name       text        NOT NULL,
    generation int         NOT NULL,
    version    int         NOT NULL, -- of its definition
    live       boolean     NOT NULL,
    system     text        NOT NULL, -- the identifier of the cluster whose transaction ids these are
    a          pg_snapshot NOT NULL, -- all that is visible in a is in, and of what is visible in b up to last_seq
    b          pg_snapshot NOT NULL,
    last_seq   bigint      NOT NULL,
    done       bigint      NOT NULL, -- events so far
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
