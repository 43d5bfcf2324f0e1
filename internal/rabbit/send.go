package rabbit

import (
	"context"
	"errors"
	"fmt"
)

// ErrNotConfirmed means that the broker has not accepted a message of Send. The messages before it
// were accepted.
var ErrNotConfirmed = errors.New("not confirmed")

// sendChunk is how many messages of Send are in flight at once.
const sendChunk = 500

// Send publishes messages on a session of its own, and waits until the broker has confirmed all of
// them. It is for the messages of an operator: a service publishes through its outbox.
func Send(ctx context.Context, rawURL, name string, messages ...Message) error {
	session, err := Open(ctx, rawURL, name)
	if err != nil {
		return err
	}
	defer session.Close()
	publisher, err := NewPublisher(session)
	if err != nil {
		return err
	}
	for len(messages) > 0 {
		chunk := messages[:min(sendChunk, len(messages))]
		messages = messages[len(chunk):]
		pendings, err := publisher.Publish(chunk)
		if err != nil {
			return err
		}
		for i, pending := range pendings {
			outcome, why, err := publisher.Wait(ctx, pending)
			if err == nil && outcome != Confirmed {
				err = errors.Join(ErrNotConfirmed, why)
			}
			if err != nil {
				return fmt.Errorf("publish %s %s: %w", chunk[i].Key, chunk[i].MessageId, err)
			}
		}
	}
	return nil
}
