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
	"github.com/quadrille-go/quadrille/postgres"
)

// The bounds of what relays know of each other.
const (
	announceInterval      = 5 * time.Second
	relayAlive            = time.Minute    // since it was last seen
	keepMemory            = 24 * time.Hour // how long what a relay wants counts after it was last seen
	foreignLeaderInterval = 10 * time.Minute
)

// Replica is a relay of an outbox, as it tells of itself.
type Replica struct {
	ID      string    `db:"id" json:"id"`
	Name    string    `db:"name" json:"name"` // of its service
	Host    string    `db:"host" json:"host"`
	PID     int       `db:"pid" json:"pid"`
	Leads   bool      `db:"leads" json:"leads"`
	Started time.Time `db:"started_at" json:"started_at"`
	Seen    time.Time `db:"seen_at" json:"seen_at"`
	// how long it wants history to stay; the longest counts, less than 0 is without end
	Keep    time.Duration `db:"-" json:"keep"`
	Seconds float64       `db:"keep" json:"-"`
}

// Replicas are the relays that were seen within the last minute, the leader first.
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

// ownKeep is how long the relay wants history to stay, in seconds.
func (r *Relay) ownKeep() float64 {
	if r.Keep < 0 {
		return math.Inf(1)
	}
	return cmp.Or(r.Keep, DefaultKeep).Seconds()
}

// announce tells the others of this relay until ctx is done, and tells its log which one leads. A
// database that is away is noticed elsewhere.
func (r *Relay) announce(ctx context.Context) {
	id := events.NewID()
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	tick := time.NewTicker(announceInterval)
	defer tick.Stop()
	for t := (leaderLog{relay: r, ownID: id}); ; {
		if r.announceOnce(ctx, id, host) == nil {
			t.report(ctx)
		}
		select {
		case <-ctx.Done():
			r.withdraw(ctx, id)
			return
		case <-tick.C:
		}
	}
}

// announceOnce writes the relay's own row, which nobody else writes.
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

// withdraw says that the relay has ended. Its wish for history counts for keepMemory.
func (r *Relay) withdraw(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_, _ = r.Outbox.db.ExecContext(ctx, `UPDATE outbox_relays SET token = 0, seen_at = least(seen_at,
		now() - $2 * interval '1 second') WHERE id = $1`,
		id, relayAlive.Seconds())
}

// leaderLog says in the log who leads, once for each leader; that the leader is of another service
// it says again and again.
type leaderLog struct {
	relay    *Relay
	ownID    string
	leader   string
	loggedAt time.Time
}

func (t *leaderLog) report(ctx context.Context) {
	list, err := t.relay.Outbox.Replicas(ctx)
	if err != nil || len(list) == 0 || !list[0].Leads || list[0].ID == t.ownID {
		return
	}
	leader := list[0]
	foreign := leader.Name != t.relay.Name
	if leader.ID == t.leader && (!foreign || time.Since(t.loggedAt) < foreignLeaderInterval) {
		return
	}
	t.leader, t.loggedAt = leader.ID, time.Now()
	event, text := t.relay.Log.Info(), "relay stands by, another replica leads"
	if foreign {
		event, text = t.relay.Log.Error(), "this relay publishes nothing: another service relays the "+
			"outbox of its database, which belongs to one service. Give each its own"
	}
	event.Str("leader", leader.Name).Str("host", leader.Host).Int("pid", leader.PID).Msg(text)
}

// longestKeep is how long history stays: as long as the most careful relay of the last day wants.
// It also forgets relays that were not seen for longer.
func longestKeep(ctx context.Context, tx *sqlx.Tx, own float64) (seconds float64, name, host string,
	err error) {
	if _, err := tx.ExecContext(ctx, `DELETE FROM outbox_relays
		WHERE seen_at < now() - $1 * interval '1 second'`, keepMemory.Seconds()); err != nil {
		return 0, "", "", fmt.Errorf("forget relays: %w", err)
	}
	var longest []Replica
	if err := tx.SelectContext(ctx, &longest, `SELECT name, host, keep FROM outbox_relays
		WHERE keep > $1 ORDER BY keep DESC LIMIT 1`, own); err != nil {
		return 0, "", "", fmt.Errorf("ask how long history is kept: %w", err)
	}
	if len(longest) == 0 {
		return own, "", "", nil
	}
	return longest[0].Seconds, longest[0].Name, longest[0].Host, nil
}

// effectiveKeep asks how long history stays, and says so when that is longer than the relay's own setting.
func (r *Relay) effectiveKeep(ctx context.Context, lead *postgres.Lead) (seconds float64, err error) {
	own := r.ownKeep()
	var name, host string
	err = lead.Tx(ctx, func(tx postgres.Fenced) error {
		seconds, name, host, err = longestKeep(ctx, tx.Tx(), own)
		return err
	})
	if err == nil && seconds > own && seconds != r.loggedKeep {
		r.Log.Warn().Float64("keep_seconds", seconds).Float64("own_keep_seconds", own).Str("wanted_by",
			name).Str("host", host).
			Msg("history stays for longer than this replica is set to, as another one wants it, or did " +
				"within a day")
	}
	r.loggedKeep = seconds
	return seconds, err
}
