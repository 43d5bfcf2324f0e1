package localrun

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// folder is a directory with the state, the locks and the logs of processes that run together.
type folder string

func (f folder) path(elem ...string) string {
	return filepath.Join(append([]string{string(f)}, elem...)...)
}

// prepare creates the directory. Other users may pass through it, since PostgreSQL runs as another
// user than root, but may not list it. Its name can be guessed, so prepare refuses a directory that
// another user has created.
func (f folder) prepare() error {
	if err := os.Mkdir(string(f), 0o711); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("create the directory for the servers: %w", err)
	}
	info, err := os.Lstat(string(f))
	if err != nil {
		return fmt.Errorf("check the directory for the servers: %w", err)
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || !ok || int(owner.Uid) != os.Getuid() || info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s is not a directory that only this user may write: remove it", f)
	}
	if err := os.Chmod(string(f), 0o711); err != nil { // the umask may have removed bits
		return fmt.Errorf("set the mode of the directory for the servers: %w", err)
	}
	return nil
}

// write replaces a file atomically: after a crash, also of the machine, it has either the old or
// the new content.
func (f folder) write(name string, data []byte, mode os.FileMode) error {
	path := f.path(name)
	err := writeAndSync(path+".new", data, mode)
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

func writeAndSync(path string, data []byte, mode os.FileMode) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	return errors.Join(err, file.Sync(), file.Close())
}

// lock takes a file lock, which the kernel releases when this program ends. It polls for the lock,
// since a blocking flock could not be cancelled.
func (f folder) lock(ctx context.Context, name string) (unlock func(), err error) {
	file, err := os.OpenFile(f.path(name), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = Poll(ctx, 10*time.Millisecond, func() (bool, error) {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, syscall.EINTR) {
			return false, nil
		}
		return true, err
	})
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return func() { _ = file.Close() }, nil
}

// lockStart takes the lock that is held to start or stop servers.
func (f folder) lockStart(ctx context.Context) (unlock func(), err error) {
	if unlock, err = f.lock(ctx, "start.lock"); err != nil {
		return nil, fmt.Errorf("lock the servers: %w", err)
	}
	return unlock, nil
}

// lockAsUser takes the shared lock of a user, and reports whether there was no other user.
func (f folder) lockAsUser() (lock int, onlyUser bool, err error) {
	path := f.path("users.lock")
	lock, err = syscall.Open(path, syscall.O_RDWR|syscall.O_CREAT|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return 0, false, fmt.Errorf("use the servers: open %s: %w", path, err)
	}
	onlyUser = syscall.Flock(lock, syscall.LOCK_EX|syscall.LOCK_NB) == nil
	for {
		err = syscall.Flock(lock, syscall.LOCK_SH)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err == nil { // the watcher detects a user between two of its checks by this time
		err = os.Chtimes(path, time.Now(), time.Now())
	}
	if err != nil {
		_ = syscall.Close(lock)
		return 0, false, fmt.Errorf("use the servers: %w", err)
	}
	return lock, onlyUser, nil
}

// lastLines returns the last lines of a file, or "".
func lastLines(path string, n int) string {
	file, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer file.Close() //nolint:errcheck // only read
	if size, err := file.Seek(0, io.SeekEnd); err == nil {
		_, _ = file.Seek(max(0, size-16<<10), io.SeekStart)
	}
	data, err := io.ReadAll(file)
	if err != nil {
		return ""
	}
	lines := strings.Split(string(bytes.TrimSpace(data)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// Poll calls condition until it returns true or an error, at once and then in intervals. The error
// of ctx ends it, too.
func Poll(ctx context.Context, every time.Duration, condition func() (done bool, err error)) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		done, err := condition()
		if done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// errNotWithin is the error of pollFor when its time is over.
var errNotWithin = errors.New("the time is over")

// pollFor is Poll within a time. When that is over, the error is errNotWithin.
func pollFor(ctx context.Context, atMost time.Duration,
	condition func() (done bool, err error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, atMost, errNotWithin)
	defer cancel()
	return Poll(ctx, pollEvery, condition)
}
