-- +goose Up
-- What waits has a kind. Whether it is parked is another matter: then it is not due.
--   retry     an event that failed and is tried again
--   deadline  a message of the service to its own reactions
--   call      a request to call the outside, or an event whose handler does so
--   unknown   an event that only another release of the service handles
--   evidence  no event, or none that can be believed; it is only ever parked
ALTER TABLE pending ADD COLUMN kind text NOT NULL DEFAULT 'retry'
    CHECK (kind IN ('retry', 'deadline', 'call', 'unknown', 'evidence'));
UPDATE pending SET kind = CASE WHEN key LIKE 'sha256:%' OR key LIKE 'not kept: %' THEN 'evidence'
    WHEN exchange = '' THEN 'deadline' ELSE 'retry' END;

-- The calls that were answered: the history of what the service asked of the outside.
CREATE TABLE calls (
    consumer       text        NOT NULL,
    owner          text        NOT NULL, -- the service itself, or the one whose event asks for the call
    id             uuid        NOT NULL, -- the idempotency key
    type           text        NOT NULL,
    subject        text        NOT NULL,
    correlation_id text        NOT NULL,
    causation_id   text        NOT NULL, -- the event because of which the call was requested
    request        bytea       NOT NULL,
    attempts       int         NOT NULL, -- that failed before the answer came
    answer_type    text        NOT NULL, -- empty: the call had no answer
    answer         bytea,
    requested_at   timestamptz NOT NULL,
    answered_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, owner, id)
);
CREATE INDEX calls_subject ON calls (consumer, subject);
-- The calls about a subject that still wait.
CREATE INDEX pending_calls ON pending (consumer, (attributes->>'subject')) WHERE kind = 'call';
CREATE INDEX calls_answered ON calls (answered_at);

-- +goose Down
DROP TABLE calls;
DROP INDEX pending_calls;
ALTER TABLE pending DROP COLUMN kind;
