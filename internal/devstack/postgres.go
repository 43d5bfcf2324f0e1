package devstack

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	_ "github.com/lib/pq" // the driver for pingPostgres
)

// postgresSettings keeps PostgreSQL durable, since tests crash it and then check their data.
const postgresSettings = `listen_addresses = '127.0.0.1'
port = %d
unix_socket_directories = ''
max_connections = 300
shared_buffers = 256MB
fsync = on
synchronous_commit = on
full_page_writes = on
wal_level = logical
max_replication_slots = 64
max_wal_senders = 64
max_slot_wal_keep_size = 2GB
max_wal_size = 2GB
jit = off
autovacuum = on
log_min_duration_statement = -1
timezone = 'UTC'
log_timezone = 'UTC'
`

// launchPostgres starts PostgreSQL. If there is no data directory, it creates one first.
func (k *stack) launchPostgres(ctx context.Context) error {
	attr, uid, gid, err := postgresAccount()
	if err != nil {
		return err
	}
	bin := filepath.Dir(newest("/usr/lib/postgresql/*/bin/postgres"))
	home := k.path("postgres")
	if err := makeDir(home, uid, gid); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(home, "data")); errors.Is(err, os.ErrNotExist) {
		if err := k.initPostgres(ctx, bin, attr, uid, gid); err != nil {
			return err
		}
	}
	config := filepath.Join(home, "quadrille.conf")
	if err := writeFor(config, fmt.Sprintf(postgresSettings, k.current().PostgresPort), uid,
		gid); err != nil {
		return err
	}
	data := filepath.Join(home, "data")
	cmd := exec.Command(filepath.Join(bin, "postgres"), "-D", data, "-c", "config_file="+config)
	cmd.Dir = data
	cmd.Env = environment(home)
	cmd.SysProcAttr = attr
	return k.spawn("postgres", cmd)
}

// initPostgres creates the data directory under a temporary name and then renames it. If it is
// interrupted, the next start creates the directory from the beginning.
func (k *stack) initPostgres(ctx context.Context, bin string, attr *syscall.SysProcAttr, uid,
	gid int) error {
	home := k.path("postgres")
	fresh, password := filepath.Join(home, "data.new"), filepath.Join(home, "password")
	if err := os.RemoveAll(fresh); err != nil {
		return fmt.Errorf("create the database cluster: %w", err)
	}
	if err := writeFor(password, k.current().PostgresPassword+"\n", uid, gid); err != nil {
		return err
	}
	defer os.Remove(password) //nolint:errcheck // as private as the state file
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "-D", fresh, "-U", postgresUser,
		"--pwfile", password,
		"--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions")
	cmd.Dir = home
	cmd.Env = environment(home)
	cmd.SysProcAttr = attr
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("create the database cluster: %w: %s", err, output)
	}
	if err := os.Rename(fresh, filepath.Join(home, "data")); err != nil {
		return fmt.Errorf("create the database cluster: %w", err)
	}
	return nil
}

// pingPostgres returns nil if PostgreSQL answers a query.
func (k *stack) pingPostgres(ctx context.Context) error {
	db, err := sql.Open("postgres", k.postgresURL())
	if err != nil {
		return err
	}
	defer db.Close() //nolint:errcheck // nothing was written
	_, err = db.ExecContext(ctx, "SELECT 1")
	return err
}

// postgresAccount returns the user that runs PostgreSQL, and the attributes of a process of that
// user. It is the current user, or postgres if that is root.
func postgresAccount() (attr *syscall.SysProcAttr, uid, gid int, err error) {
	attr = &syscall.SysProcAttr{Setsid: true}
	if os.Getuid() != 0 {
		return attr, os.Getuid(), os.Getgid(), nil
	}
	account, err := user.Lookup("postgres")
	if err != nil {
		return nil, 0, 0,
			fmt.Errorf("PostgreSQL does not run as root, and the user postgres of its package does not "+
				"exist: %w", err)
	}
	if uid, err = strconv.Atoi(account.Uid); err != nil {
		return nil, 0, 0, fmt.Errorf("the user postgres: %w", err)
	}
	if gid, err = strconv.Atoi(account.Gid); err != nil {
		return nil, 0, 0, fmt.Errorf("the user postgres: %w", err)
	}
	attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid), NoSetGroups: false}
	return attr, uid, gid, nil
}

// makeDir creates a directory that only its owner may enter.
func makeDir(path string, uid, gid int) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return fmt.Errorf("create a directory: %w", err)
	}
	if err := os.Chown(path, uid, gid); err != nil {
		return fmt.Errorf("create a directory: %w", err)
	}
	return nil
}

// writeFor writes a file that only its owner may read.
func writeFor(path, text string, uid, gid int) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("write a file: %w", err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return fmt.Errorf("write a file: %w", err)
	}
	if err := os.Chown(path, uid, gid); err != nil {
		return fmt.Errorf("write a file: %w", err)
	}
	return nil
}
