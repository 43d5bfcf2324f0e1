package cdc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/quadrille-go/quadrille/internal/pg"
)

// publishedSQL reports whether the publication contains the present table. A table that was dropped
// and created again is no longer part of it.
const publishedSQL = `EXISTS (SELECT FROM pg_publication AS p JOIN pg_publication_rel AS r
	ON r.prpubid = p.oid
	WHERE p.pubname = $1 AND p.pubinsert AND r.prrelid = 'outbox'::regclass)`

// prepare refuses a server or a role that cannot stream, and creates the publication if needed.
func (s Source) prepare(ctx context.Context) error {
	var found struct {
		Level        string `db:"level"`
		Keep         string `db:"keep"`
		Role         string `db:"role"`
		MayReplicate bool   `db:"may_replicate"`
		Published    bool   `db:"published"`
	}
	err := s.DB.GetContext(ctx, &found, `SELECT current_setting('wal_level') AS level,
		current_setting('max_slot_wal_keep_size') AS keep,
		current_user AS role, rolreplication OR rolsuper AS may_replicate, `+publishedSQL+`
		AS published
		FROM pg_roles WHERE rolname = current_user`, publication)
	switch {
	case err != nil:
		return fmt.Errorf("check logical replication: %w", err)
	case found.Level != "logical":
		return fmt.Errorf("%w: wal_level is %s: set it with ALTER SYSTEM SET wal_level = 'logical', "+
			"and restart the server", ErrNotLogical, found.Level)
	case !found.MayReplicate:
		return fmt.Errorf("%w: the role may not replicate: ALTER ROLE %q REPLICATION", ErrNotLogical,
			found.Role)
	}
	if found.Keep == "-1" {
		s.Log.Warn().Msg("max_slot_wal_keep_size is not set: while no relay streams, the server's " +
			"write-ahead log may fill the disk")
	}
	if found.Published {
		return nil
	}
	// A publication that does not contain the table is left from one that was dropped. The new one
	// has only inserts: the retention deletes rows, and the stream must not carry those deletes.
	if _, err := s.DB.ExecContext(ctx, `DROP PUBLICATION IF EXISTS `+publication); err != nil {
		return fmt.Errorf("create publication: %w", err)
	}
	if _, err := s.DB.ExecContext(ctx, `CREATE PUBLICATION `+publication+
		` FOR TABLE outbox WITH (publish = 'insert')`); err != nil {
		return fmt.Errorf("create publication: %w", err)
	}
	return nil
}

// connect opens a session of the replication protocol. It removes options of the URL that are for
// another driver or for ordinary sessions: pgx would send them to the server as settings.
func (s Source) connect(ctx context.Context, slot string) (*pgconn.PgConn, error) {
	u, err := pg.AddressURL(s.URL)
	if err != nil {
		return nil, fmt.Errorf("connect for replication: %w", err)
	}
	q := u.Query()
	for name := range q {
		if !slices.Contains([]string{"sslmode", "sslcert", "sslkey", "sslrootcert", "host", "port",
			"user", "password"}, name) {
			q.Del(name)
		}
	}
	q.Set("replication", "database")
	q.Set("client_encoding", "UTF8")
	// A server that waits longer for a relay that is gone would keep the slot busy, and the next
	// leader could not stream from it.
	q.Set("wal_sender_timeout", fmt.Sprint(senderTimeout.Milliseconds()))
	u.RawQuery = q.Encode()
	config, err := pgconn.ParseConfig(u.String())
	if err != nil {
		return nil, errors.New("connect for replication: the URL of the database has an option that " +
			"the driver refuses")
	}
	config.ConnectTimeout = connectTimeout
	config.RuntimeParams["application_name"] = slot // refuseStandby looks for it
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connect for replication: %w", err)
	}
	return conn, nil
}

// startStream begins at the confirmed position of the slot, which position 0 stands for. With
// version 1 of the protocol the server sends a transaction after its commit and as a whole. Later
// versions may send an open transaction, which the relay must not publish: it can still roll back.
func startStream(ctx context.Context, conn *pgconn.PgConn, slot string) (*stream, error) {
	err := pglogrepl.StartReplication(ctx, conn, slot, 0, pglogrepl.StartReplicationOptions{
		Mode: pglogrepl.LogicalReplication, PluginArgs: []string{"proto_version '1'",
			"publication_names '" + publication + "'"},
	})
	if err != nil {
		return nil, fmt.Errorf("start replication: %w", err)
	}
	return newStream(conn), nil
}

// pause waits for a time, or until ctx is done, whose error it then returns. It is for polls, while
// the former session of a slot ends.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
