-- +goose Up
-- Each pending row has a kind. A row of any kind may be parked; then due is null.
--   retry     an event whose handler failed and will run again
--   deadline  a message of the service to its own reactions, after a time
--   call      a request to call another system, or an event whose handler calls one
--   unknown   an event that only another release of the service handles
--   evidence  a malformed or contradictory message, which is only ever parked
ALTER TABLE pending ADD COLUMN kind text NOT NULL DEFAULT 'retry'
    CHECK (kind IN ('retry', 'deadline', 'call', 'unknown', 'evidence'));
UPDATE pending SET kind = CASE WHEN key LIKE 'sha256:%' OR key LIKE 'not kept: %' THEN 'evidence'
    WHEN exchange = '' THEN 'deadline' ELSE 'retry' END;

-- The history of the calls to other systems that were answered.
CREATE TABLE calls (
    consumer       text        NOT NULL,
    owner          text        NOT NULL, -- the service itself, or the one whose event asks for the call
    id             uuid        NOT NULL, -- the idempotency key
    type           text        NOT NULL,
    subject        text        NOT NULL,
    correlation_id text        NOT NULL,
    causation_id   text        NOT NULL, -- the event because of which the call was requested
    request        bytea       NOT NULL,
    attempts       int         NOT NULL, -- failed attempts before the answer
    answer_type    text        NOT NULL, -- empty: the call had no answer
    answer         bytea,
    requested_at   timestamptz NOT NULL,
    answered_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, owner, id)
);
CREATE INDEX calls_subject ON calls (consumer, subject);
-- The pending calls about a subject.
CREATE INDEX pending_calls ON pending (consumer, (attributes->>'subject')) WHERE kind = 'call';
CREATE INDEX calls_answered ON calls (answered_at);

-- +goose Down
DROP TABLE calls;
DROP INDEX pending_calls;
ALTER TABLE pending DROP COLUMN kind;
