package idempotency_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"testing"

	"github.com/jmoiron/sqlx"
	"pgregory.net/rapid"

	"github.com/quadrille-go/quadrille/idempotency"
	"github.com/quadrille-go/quadrille/internal/pg"
	"github.com/quadrille-go/quadrille/internal/servertest"
	"github.com/quadrille-go/quadrille/quadrilletest"
)

func TestKeyOf(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		`abc`: "abc", `"abc"`: "abc", ` "abc" `: "abc",
		`8e03978e-40d5-43e8-bc93-6894a57f9324`: "8e03978e-40d5-43e8-bc93-6894a57f9324",
		`"`:                                    "", `""`: "", ``: "", `"a`: "", `a"`: "", `a"b`: "",
		"a\x00": "", "a\x7f": "", "a\nb": "",
		"ä": "", "\u00a0abc": "", "abc\u0085": "", "a\u202eb": "", "\vabc": "", `"\"`: `\`,
		strings.Repeat("k", 255): strings.Repeat("k", 255), strings.Repeat("k", 256): "", `"` +
			strings.Repeat("k", 256) + `"`: "",
	} {
		got, err := idempotency.KeyOf(http.Header{"Idempotency-Key": {given}})
		if got != want || (err == nil) != (want != "") || err != nil &&
			!errors.Is(err, idempotency.ErrKey) {
			t.Errorf("key of %q is %q, %v; want %q", given, got, err, want)
		}
	}
	for _, h := range []http.Header{{}, {"Idempotency-Key": {"a", "a"}}} {
		if _, err := idempotency.KeyOf(h); !errors.Is(err, idempotency.ErrKey) {
			t.Errorf("%v: %v", h, err)
		}
	}
}

// A printable key means the same quoted and bare, and every accepted key can be stored.
func TestAKeyMeansTheSameQuotedAndBare(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.StringMatching(`[!#-~]([ !#-~]{0,60}[!#-~])?`).Draw(t, "key")
		for _, form := range []string{key, `"` + key + `"`, " " + key + "\t"} {
			if got, err := idempotency.KeyOf(http.Header{"Idempotency-Key": {form}}); err != nil ||
				got != key {
				t.Fatalf("key of %q is %q, %v", form, got, err)
			}
		}
		text := rapid.String().Draw(t, "any")
		if got, err := idempotency.KeyOf(http.Header{"Idempotency-Key": {text}}); err == nil &&
			(got == "" || len(got) > idempotency.MaxKey || strings.ContainsAny(got, "\x00\r\n\"")) {
			t.Fatalf("%q was accepted as %q", text, got)
		}
	})
}

func TestFingerprintCoversTheWholeRequest(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	for _, r := range [][3]string{{"POST", "/a", "{}"}, {"PUT", "/a", "{}"}, {"POST", "/b", "{}"},
		{"POST", "/a", "{ }"}, {"POST", "/a", ""}} {
		fingerprint := string(idempotency.Fingerprint(r[0], r[1], []byte(r[2])))
		if other, found := seen[fingerprint]; found {
			t.Errorf("%q has the fingerprint of %s", r, other)
		}
		seen[fingerprint] = fmt.Sprint(r)
	}
}

func database(t *testing.T) *sqlx.DB {
	t.Helper()
	sql, err := fs.ReadFile(idempotency.Migrations(), "001_idempotency.sql")
	if err != nil {
		t.Fatal(err)
	}
	url := servertest.Database(t, "idempotency "+string(sql),
		func(ctx context.Context, url string) error {
			if err := pg.Migrate(ctx, url, "idempotency", idempotency.Migrations()); err != nil {
				return err
			}
			return pg.Migrate(ctx, url, "test", effects)
		})
	db, err := pg.Open(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// do runs a request that adds one row, whose number is the answer.
func do(ctx context.Context, db *sqlx.DB, client, key, body string,
	status int) (answer idempotency.Response, replayed bool, err error) {
	request := idempotency.Request{Client: client, Key: key,
		Fingerprint: idempotency.Fingerprint("POST", "/", []byte(body))}
	err = pg.InTx(ctx, db, func(tx *sqlx.Tx) (err error) {
		answer, replayed, err = idempotency.Do(ctx, tx, request, func() (idempotency.Response, error) {
			var n int
			err := tx.GetContext(ctx, &n, `INSERT INTO effects DEFAULT VALUES RETURNING n`)
			return idempotency.Response{Status: status, Location: "/" + body, Body: fmt.Append(nil, n)}, err
		})
		return err
	})
	return answer, replayed, err
}

func count(t *testing.T, db *sqlx.DB, table string) (n int) {
	t.Helper()
	if err := db.GetContext(t.Context(), &n, `SELECT count(*) FROM `+table); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestARequestTakesEffectOnceForItsClient(t *testing.T) {
	t.Parallel()
	db := database(t)
	first, replayed, err := do(t.Context(), db, "ada", "k", "x", http.StatusCreated)
	if err != nil || replayed || first.Status != http.StatusCreated {
		t.Fatalf("%+v, %v, %v", first, replayed, err)
	}
	second, replayed, err := do(t.Context(), db, "ada", "k", "x", http.StatusAccepted)
	if err != nil || !replayed || fmt.Sprint(second) != fmt.Sprint(first) {
		t.Errorf("%+v, %v, %v; want %+v", second, replayed, err, first)
	}
	if _, _, err := do(t.Context(), db, "ada", "k", "y", http.StatusCreated); !errors.Is(err,
		idempotency.ErrMismatch) {
		t.Errorf("another body: %v", err)
	}
	if other, replayed, err := do(t.Context(), db, "eve", "k", "x", http.StatusCreated); err != nil ||
		replayed || string(other.Body) == string(first.Body) {
		t.Errorf("another client: %+v, %v, %v", other, replayed, err)
	}
	if n := count(t, db, "effects"); n != 2 {
		t.Errorf("%d effects", n)
	}
}

// A 4xx answer is stored like any other. A 5xx answer is not stored, and its effect is rolled back.
func TestA5xxIsNeverStored(t *testing.T) {
	t.Parallel()
	db := database(t)
	for _, status := range []int{http.StatusInternalServerError, http.StatusServiceUnavailable, 599} {
		if answer, _, err := do(t.Context(), db, "ada", "k", "x", status); !errors.Is(err,
			idempotency.ErrNotStored) || answer.Status != status {
			t.Errorf("%d: %+v, %v", status, answer, err)
		}
	}
	if n := count(t, db, "effects") + count(t, db, "idempotency_keys"); n != 0 {
		t.Errorf("%d rows", n)
	}
	if _, _, err := do(t.Context(), db, "ada", "k", "x", http.StatusNotFound); err != nil {
		t.Error(err)
	}
	if answer, replayed, err := do(t.Context(), db, "ada", "k", "x", http.StatusCreated); err != nil ||
		!replayed || answer.Status != http.StatusNotFound {
		t.Errorf("%+v, %v, %v", answer, replayed, err)
	}
}

// waitFor waits until a condition is true.
func waitFor(t *testing.T, what string, f func() bool) {
	t.Helper()
	quadrilletest.WaitFor(t, what, func() (bool, string) { return f(), "" })
}

// A claim lasts as long as its transaction: while the transaction is open the key is in progress,
// and after every kind of end it is free.
func TestAClaimEndsWithItsTransaction(t *testing.T) {
	t.Parallel()
	db := database(t)
	for name, end := range map[string]func(tx *sqlx.Tx) error{
		"a rollback": func(*sqlx.Tx) error { return errors.New("no") },
		"a panic":    func(*sqlx.Tx) error { panic("oh") },
		"the end of the session": func(tx *sqlx.Tx) error {
			_, err := tx.ExecContext(context.Background(), `SELECT pg_terminate_backend(pg_backend_pid())`)
			return err
		},
	} {
		request := idempotency.Request{Client: "ada", Key: name, Fingerprint: []byte{1}}
		func() {
			defer func() { _ = recover() }()
			_ = pg.InTx(t.Context(), db, func(tx *sqlx.Tx) error {
				_, _, err := idempotency.Do(t.Context(), tx, request, func() (idempotency.Response, error) {
					if _, _, err := do(t.Context(), db, "ada", name, "x", http.StatusCreated); !errors.Is(err,
						idempotency.ErrInProgress) {
						t.Errorf("before %s: error %v, want ErrInProgress", name, err)
					}
					return idempotency.Response{Status: http.StatusCreated}, end(tx)
				})
				return err
			})
		}()
		if n := count(t, db, "idempotency_keys WHERE key = '"+name+"'"); n != 0 {
			t.Errorf("%d keys after %s", n, name)
		}
		// The client learns of the end of a session before the server releases the locks.
		waitFor(t, "no lock is left after "+name, func() bool {
			return count(t, db, "pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM "+
				"pg_database WHERE datname = current_database())") == 0
		})
		if _, replayed, err := do(t.Context(), db, "ada", name, "x", http.StatusCreated); err != nil ||
			replayed {
			t.Errorf("after %s: %v, %v", name, replayed, err)
		}
	}
}

// If another transaction stores the same key first, the error is ErrRaced, and the next run returns
// the stored answer.
func TestKeyStoredMeanwhileIsARace(t *testing.T) {
	t.Parallel()
	db := database(t)
	request := idempotency.Request{Client: "ada", Key: "k",
		Fingerprint: idempotency.Fingerprint("POST", "/", []byte("x"))}
	err := pg.InTx(t.Context(), db, func(tx *sqlx.Tx) error {
		_, _, err := idempotency.Do(t.Context(), tx, request, func() (idempotency.Response, error) {
			_, err := db.ExecContext(t.Context(), `INSERT INTO idempotency_keys (client, key, fingerprint,
				status, location, body)
				VALUES ('ada', 'k', $1, 200, '', 'first')`, request.Fingerprint)
			return idempotency.Response{Status: http.StatusCreated, Body: []byte("second")}, err
		})
		return err
	})
	if !errors.Is(err, pg.ErrRaced) {
		t.Errorf("%v, want ErrRaced", err)
	}
	if answer, replayed, err := do(t.Context(), db, "ada", "k", "x", http.StatusCreated); err != nil ||
		!replayed || string(answer.Body) != "first" {
		t.Errorf("%s, %v, %v", answer.Body, replayed, err)
	}
}

// Each of several requests in one transaction has its own outcome, under its own client and key.
func TestSeveralRequestsHaveEachTheirOwnOutcome(t *testing.T) {
	t.Parallel()
	db := database(t)
	if _, _, err := do(t.Context(), db, "ada", "old", "old", http.StatusAccepted); err != nil {
		t.Fatal(err)
	}
	request := func(client, key, body string) idempotency.Request {
		return idempotency.Request{Client: client, Key: key, Fingerprint: idempotency.Fingerprint("POST",
			"/", []byte(body))}
	}
	requests := []idempotency.Request{
		request("ada", "k", "first"), request("eve", "k", "second"), request("ada", "old", "old"),
		request("ada", "k", "first"), request("ada", "old", "other"), request("ada", "l", "third"),
	}
	want := []string{"201 /0 0", "201 /1 1", "202 /old replayed", idempotency.ErrInProgress.Error(),
		idempotency.ErrMismatch.Error(), "201 /5 5"}
	err := pg.InTx(t.Context(), db, func(tx *sqlx.Tx) error {
		results, err := idempotency.DoAll(t.Context(), tx, requests,
			func(todo []int) ([]idempotency.Response, error) {
				var answers []idempotency.Response
				for _, i := range todo {
					answers = append(answers, idempotency.Response{Status: http.StatusCreated,
						Location: fmt.Sprint("/", i), Body: fmt.Append(nil, i)})
				}
				return answers, nil
			})
		for i, r := range results {
			got := fmt.Sprintf("%d %s %s", r.Status, r.Location, r.Body)
			if r.Replayed {
				got = fmt.Sprintf("%d %s replayed", r.Status, r.Location)
			}
			if r.Err != nil {
				got = r.Err.Error()
			}
			if got != want[i] {
				t.Errorf("request %d: %s, want %s", i, got, want[i])
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, body := range []string{"first", "second"} { // each was stored under its own client
		client := requests[i].Client
		if answer, replayed, err := do(t.Context(), db, client, "k", body,
			http.StatusTeapot); err != nil || !replayed || string(answer.Body) != fmt.Sprint(i) {
			t.Errorf("again as %s: %+v, %t, %v", client, answer, replayed, err)
		}
	}
}

// While a request is in progress, that of another client under the same key is none the worse.
func TestAKeyInProgressIsThatOfItsClient(t *testing.T) {
	t.Parallel()
	db := database(t)
	request := idempotency.Request{Client: "ada", Key: "k", Fingerprint: []byte{1}}
	err := pg.InTx(t.Context(), db, func(tx *sqlx.Tx) error {
		_, _, err := idempotency.Do(t.Context(), tx, request, func() (idempotency.Response, error) {
			if _, replayed, err := do(t.Context(), db, "eve", "k", "x", http.StatusCreated); err != nil ||
				replayed {
				t.Errorf("another client meanwhile: %t, %v", replayed, err)
			}
			return idempotency.Response{Status: http.StatusCreated}, nil
		})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
