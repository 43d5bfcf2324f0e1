-- +goose Up
-- Why a row is held. Only refused rows count towards the bound at which the broker is taken for broken. A row
-- behind another has no schedule of its own: it is due when the rows before it are released.
ALTER TABLE outbox_held ADD COLUMN kind text NOT NULL DEFAULT 'refused'
    CHECK (kind IN ('refused', 'unroutable', 'unsendable', 'behind', 'unseen'));
UPDATE outbox_held SET kind = CASE WHEN due = 'infinity' THEN 'unsendable' WHEN attempts = 0 THEN 'behind'
    WHEN reason LIKE 'unroutable%' THEN 'unroutable' ELSE 'refused' END;

-- With these indexes the cost to find due rows, and to count refused ones, does not depend on how many are held.
CREATE INDEX outbox_held_due ON outbox_held (due, seq) WHERE due < 'infinity';
CREATE INDEX outbox_held_refused ON outbox_held (seq) WHERE kind = 'refused' AND due < 'infinity';

-- +goose Down
ALTER TABLE outbox_held DROP COLUMN kind;
DROP INDEX IF EXISTS outbox_held_due;
