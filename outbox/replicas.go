package outbox

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"os"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/pg"
)

// The bounds of the rows by which relays know each other.
const (
	announceInterval = 5 * time.Second
	relayAlive       = time.Minute // a relay that has not announced itself for longer has ended
	// keepMemory is how long the Keep of a relay counts after it has ended. A restart or a long
	// deployment must not delete events that the replica wants to keep.
	keepMemory            = 24 * time.Hour
	foreignLeaderInterval = 10 * time.Minute // between two log lines about a leader of another service
)

// Replica is the row in which a relay announces itself to other relays.
type Replica struct {
	ID      string    `db:"id" json:"id"`
	Name    string    `db:"name" json:"name"` // of its service
	Host    string    `db:"host" json:"host"`
	PID     int       `db:"pid" json:"pid"`
	Leads   bool      `db:"leads" json:"leads"`
	Started time.Time `db:"started_at" json:"started_at"`
	Seen    time.Time `db:"seen_at" json:"seen_at"`
	// Keep is how long it wants published events to stay; negative: they are never deleted.
	Keep    time.Duration `db:"-" json:"keep"`
	Seconds float64       `db:"keep" json:"-"`
}

// Replicas returns the relays that have announced themselves within the last minute, the leader
// first.
func (o *Outbox) Replicas(ctx context.Context) ([]Replica, error) {
	list := []Replica{}
	err := o.db.SelectContext(ctx, &list, `SELECT r.id::text, r.name, r.host, r.pid, r.keep,
		r.started_at, r.seen_at,
			r.token > 0 AND r.token = (SELECT token FROM leaders WHERE leaders.name = 'outbox') AS leads
		FROM outbox_relays AS r WHERE r.pid > 0 AND r.seen_at > now() - $1 * interval '1 second'
			ORDER BY leads DESC, r.started_at, r.id`, relayAlive.Seconds())
	for i, r := range list {
		if list[i].Keep = time.Duration(r.Seconds * float64(time.Second)); math.IsInf(r.Seconds, 1) {
			list[i].Keep = -1
		}
	}
	return list, wrap("list relays", err)
}

// ownKeep is the relay's Keep in seconds.
func (r *Relay) ownKeep() float64 {
	if r.Keep < 0 {
		return math.Inf(1)
	}
	return cmp.Or(r.Keep, DefaultKeep).Seconds()
}

// announce writes the relay's row once in announceInterval until ctx is done, and logs which relay
// leads. It ignores errors: when the database fails, the term and the standby log that.
func (r *Relay) announce(ctx context.Context) {
	id := events.NewID()
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	tick := time.NewTicker(announceInterval)
	defer tick.Stop()
	for l := (leaderLog{relay: r, ownID: id}); ; {
		if r.announceOnce(ctx, id, host) == nil {
			l.report(ctx)
		}
		select {
		case <-ctx.Done():
			r.withdraw(ctx, id)
			return
		case <-tick.C:
		}
	}
}

// announceOnce writes the relay's own row. No other relay writes it, so an update that finds no row
// may be followed by an insert.
func (r *Relay) announceOnce(ctx context.Context, id, host string) error {
	done, err := r.Outbox.db.ExecContext(ctx, `UPDATE outbox_relays SET keep = $2, token = $3,
		seen_at = now() WHERE id = $1`, id, r.ownKeep(), r.token.Load())
	if err != nil {
		return err
	}
	if n, err := done.RowsAffected(); err != nil || n > 0 {
		return err
	}
	_, err = r.Outbox.db.ExecContext(ctx, `INSERT INTO outbox_relays (id, name, host, pid, keep, token)
		VALUES ($1, $2, $3, $4, $5, $6)`,
		id, r.Name, host, os.Getpid(), r.ownKeep(), r.token.Load())
	return err
}

// withdraw marks the relay as ended. Its row stays, because its Keep counts for keepMemory.
func (r *Relay) withdraw(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_, _ = r.Outbox.db.ExecContext(ctx, `UPDATE outbox_relays SET token = 0, seen_at = least(seen_at,
		now() - $2 * interval '1 second') WHERE id = $1`,
		id, relayAlive.Seconds())
}

// leaderLog logs on a standby which relay leads, once for each leader. A leader of another service
// means that two services share a database and one of them publishes nothing, which it logs as an
// error again and again.
type leaderLog struct {
	relay    *Relay
	ownID    string
	leader   string // the ID of the leader in the last line
	loggedAt time.Time
}

func (l *leaderLog) report(ctx context.Context) {
	list, err := l.relay.Outbox.Replicas(ctx)
	if err != nil || len(list) == 0 || !list[0].Leads || list[0].ID == l.ownID {
		return
	}
	leader := list[0]
	foreign := leader.Name != l.relay.Name
	if leader.ID == l.leader && (!foreign || time.Since(l.loggedAt) < foreignLeaderInterval) {
		return
	}
	l.leader, l.loggedAt = leader.ID, time.Now()
	event, text := l.relay.Log.Info(), "relay stands by, another replica leads"
	if foreign {
		event, text = l.relay.Log.Error(), "this relay publishes nothing: the relay of another service "+
			"leads on the same database. Give each service a database of its own"
	}
	event.Str("leader", leader.Name).Str("host", leader.Host).Int("pid", leader.PID).Msg(text)
}

// longestKeep returns the longest Keep of the relays that were seen within keepMemory, and the name
// and host of the relay that wants it; they are empty if no Keep is longer than own. It deletes the
// rows of relays that were not seen for longer.
func longestKeep(ctx context.Context, tx *sqlx.Tx, own float64) (seconds float64, name, host string,
	err error) {
	if _, err := tx.ExecContext(ctx, `DELETE FROM outbox_relays
		WHERE seen_at < now() - $1 * interval '1 second'`, keepMemory.Seconds()); err != nil {
		return 0, "", "", fmt.Errorf("delete rows of ended relays: %w", err)
	}
	var longest []Replica
	if err := tx.SelectContext(ctx, &longest, `SELECT name, host, keep FROM outbox_relays
		WHERE keep > $1 ORDER BY keep DESC LIMIT 1`, own); err != nil {
		return 0, "", "", fmt.Errorf("read the keep of all relays: %w", err)
	}
	if len(longest) == 0 {
		return own, "", "", nil
	}
	return longest[0].Seconds, longest[0].Name, longest[0].Host, nil
}

// effectiveKeep returns the longest Keep of all relays, and logs it when it is longer than the
// relay's own.
func (r *Relay) effectiveKeep(ctx context.Context, lead *pg.Lead) (seconds float64,
	err error) {
	own := r.ownKeep()
	var name, host string
	err = lead.Tx(ctx, func(tx pg.Fenced) error {
		seconds, name, host, err = longestKeep(ctx, tx.Tx(), own)
		return err
	})
	if err == nil && seconds > own && seconds != r.loggedKeep {
		r.Log.Warn().Float64("keep_seconds", seconds).Float64("own_keep_seconds", own).Str("wanted_by",
			name).Str("host", host).
			Msg("published events are kept for longer than this replica's Keep, because another replica " +
				"wants that, or wanted it within the last day")
	}
	r.loggedKeep = seconds
	return seconds, err
}
