-- +goose Up
-- A parcel is booked with, and recalled from, the outside world: see carrier.go for the states in between.
ALTER TABLE shipments
    ADD COLUMN booked boolean NOT NULL DEFAULT false,
    DROP CONSTRAINT shipments_state_check,
    ADD CONSTRAINT shipments_state_check CHECK (state IN ('waiting', 'scheduled', 'failed', 'cancelled', 'void',
        'booking', 'unwanted', 'recalling', 'recall_refused'));
-- What needs a person, or a look.
CREATE INDEX shipments_open ON shipments (state, order_id) WHERE state IN ('booking', 'unwanted', 'recalling', 'recall_refused');

-- +goose Down
DROP INDEX shipments_open;
ALTER TABLE shipments
    DROP CONSTRAINT shipments_state_check,
    ADD CONSTRAINT shipments_state_check CHECK (state IN ('waiting', 'scheduled', 'failed', 'cancelled', 'void')),
    DROP COLUMN booked;
