-- +goose Up
-- An operator may also replace the body of a parked row. The body that it had before stays here.
ALTER TABLE repairs ADD COLUMN edited bytea;
ALTER TABLE repairs DROP CONSTRAINT repairs_action_check;
ALTER TABLE repairs ADD CONSTRAINT repairs_action_check
    CHECK (action IN ('redrive', 'discard', 'edit'));

-- +goose Down
DELETE FROM repairs WHERE action = 'edit';
ALTER TABLE repairs DROP CONSTRAINT repairs_action_check;
ALTER TABLE repairs ADD CONSTRAINT repairs_action_check CHECK (action IN ('redrive', 'discard'));
ALTER TABLE repairs DROP COLUMN edited;
