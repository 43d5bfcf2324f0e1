package localrun

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

// postgres returns the PostgreSQL of a folder.
func postgres(common server) *server {
	s := &common
	s.name, s.programs = "postgres", []string{"postgres"}
	s.home = s.folder.path("postgres", "data")
	s.launch = func(ctx context.Context) error {
		if s.script.runtime != "" {
			return s.script.container(s.name).start(ctx, postgresImage(s.settings.current()))
		}
		return launchPostgres(ctx, s)
	}
	s.ping = func(ctx context.Context) error { return pingPostgres(ctx, s.settings.postgresURL()) }
	return s
}

// launchPostgres starts PostgreSQL. If there is no data directory, it creates one first.
func launchPostgres(ctx context.Context, s *server) error {
	attr, uid, gid, err := PostgresAccount()
	if err != nil {
		return err
	}
	bin := filepath.Dir(newest(postgresPattern))
	home := s.folder.path("postgres")
	if err := makeDir(home, uid, gid); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(home, "data")); errors.Is(err, os.ErrNotExist) {
		if err := initPostgres(ctx, s, bin, attr, uid, gid); err != nil {
			return err
		}
	}
	config := filepath.Join(home, "quadrille.conf")
	if err := WriteFor(config, fmt.Sprintf(postgresSettings, s.settings.current().PostgresPort),
		uid, gid); err != nil {
		return err
	}
	data := filepath.Join(home, "data")
	cmd := exec.Command(filepath.Join(bin, "postgres"), "-D", data, "-c", "config_file="+config)
	cmd.Dir = data
	cmd.Env = environment(home)
	cmd.SysProcAttr = attr
	return s.spawn("postgres", cmd)
}

// initPostgres creates the data directory under a temporary name and then renames it. If it is
// interrupted, the next start creates the directory from the beginning.
func initPostgres(ctx context.Context, s *server, bin string, attr *syscall.SysProcAttr, uid,
	gid int) error {
	home := s.folder.path("postgres")
	fresh, password := filepath.Join(home, "data.new"), filepath.Join(home, "password")
	if err := os.RemoveAll(fresh); err != nil {
		return fmt.Errorf("create the database cluster: %w", err)
	}
	if err := WriteFor(password, s.settings.current().PostgresPassword+"\n", uid, gid); err != nil {
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
func pingPostgres(ctx context.Context, url string) error {
	db, err := sql.Open("postgres", url)
	if err != nil {
		return err
	}
	defer db.Close() //nolint:errcheck // nothing was written
	_, err = db.ExecContext(ctx, "SELECT 1")
	return err
}

// PostgresAccount returns the user that runs PostgreSQL, and the attributes of a process of that
// user. It is the current user, or postgres if that is root.
func PostgresAccount() (attr *syscall.SysProcAttr, uid, gid int, err error) {
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

// WriteFor writes a file that only its owner may read.
func WriteFor(path, text string, uid, gid int) error {
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
