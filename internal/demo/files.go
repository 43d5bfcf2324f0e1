package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// lockTimeout is how long an up, down or demo of a stack waits for another one.
const lockTimeout = 3 * time.Minute

// lock prevents other programs from starting or stopping the same stack at the same time: two
// programs that read one state would start each process twice. The kernel releases the lock when
// the program ends.
func (s *Stack) lock(ctx context.Context) (unlock func(), err error) {
	return lockFile(ctx, filepath.Join(s.dir(), "stack.lock"), lockTimeout)
}

func lockFile(ctx context.Context, path string, atMost time.Duration) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("lock the stack: %w", err)
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the stack: %w", err)
	}
	deadline := time.Now().Add(atMost)
	for {
		err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = file.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			break
		}
		if time.Now().After(deadline) {
			err = fmt.Errorf(
				"another up or down of this stack has not ended after %s: wait for it, or end it",
				atMost)
			break
		}
		if err = pause(ctx, pollEvery); err != nil {
			break
		}
	}
	_ = file.Close()
	return nil, fmt.Errorf("lock the stack (%s): %w", path, err)
}

// writeFile replaces a file atomically: after a crash, also of the machine, it has either the old
// or the new content.
func writeFile(path, content string) error {
	err := writeAndSync(path+".new", content)
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	return nil
}

func writeAndSync(path, content string) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.WriteString(content)
	return errors.Join(err, file.Sync(), file.Close())
}
