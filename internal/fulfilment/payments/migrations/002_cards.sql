-- +goose Up
-- A card is charged and refunded by the outside world: see card.go for the states in between.
ALTER TABLE payments
    ADD COLUMN card text NOT NULL DEFAULT '',
    DROP CONSTRAINT payments_state_check,
    ADD CONSTRAINT payments_state_check CHECK (state IN ('captured', 'declined', 'refunded', 'void',
        'charging', 'unwanted', 'refunding', 'refund_refused')),
    ADD CONSTRAINT payments_card_check CHECK ((state IN ('charging', 'unwanted', 'refunding', 'refund_refused')) <= (card <> '' AND amount > 0));
-- What needs a person, or a look.
CREATE INDEX payments_open ON payments (state, order_id) WHERE state IN ('charging', 'unwanted', 'refunding', 'refund_refused');

-- +goose Down
DROP INDEX payments_open;
ALTER TABLE payments
    DROP CONSTRAINT payments_card_check,
    DROP CONSTRAINT payments_state_check,
    ADD CONSTRAINT payments_state_check CHECK (state IN ('captured', 'declined', 'refunded', 'void')),
    DROP COLUMN card;
