-- +goose Up
-- Why a row is held. Only what the broker itself refuses counts towards the bound at which it is taken for
-- broken. A row behind another has no time of its own: it is due when those before it have gone.
ALTER TABLE outbox_held ADD COLUMN kind text NOT NULL DEFAULT 'refused'
    CHECK (kind IN ('refused', 'unroutable', 'unsendable', 'behind', 'unseen'));
UPDATE outbox_held SET kind = CASE WHEN due = 'infinity' THEN 'unsendable' WHEN attempts = 0 THEN 'behind'
    WHEN reason LIKE 'unroutable%' THEN 'unroutable' ELSE 'refused' END;

-- They find the rows that are tried next, and count those that the broker refuses, at the same cost however many are held.
CREATE INDEX outbox_held_due ON outbox_held (due, seq) WHERE due < 'infinity';
CREATE INDEX outbox_held_refused ON outbox_held (seq) WHERE kind = 'refused' AND due < 'infinity';

-- +goose Down
ALTER TABLE outbox_held DROP COLUMN kind;
DROP INDEX IF EXISTS outbox_held_due;
