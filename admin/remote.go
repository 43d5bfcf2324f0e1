package admin

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
)

// remote is a service that is called over HTTP.
type remote struct {
	client *Client
	name   string
}

func (s remote) get(ctx context.Context, path string, out any) error {
	return s.client.Call(ctx, s.name, http.MethodGet, "/admin/"+path, nil, nil, out)
}

func (s remote) post(ctx context.Context, path string, body, out any) error {
	return s.client.Call(ctx, s.name, http.MethodPost, "/admin/"+path, nil, body, out)
}

func (s remote) History(ctx context.Context, subject string) (list []Event, err error) {
	err = s.get(ctx, "history/"+url.PathEscape(subject), &list)
	return list, err
}

func (s remote) Event(ctx context.Context, id string) (e Event, err error) {
	err = s.get(ctx, "events/"+url.PathEscape(id), &e)
	return e, err
}

func (s remote) Handled(ctx context.Context, ids []string) (all []Handled, err error) {
	for chunk := range slices.Chunk(ids, maxIDs) {
		var list []Handled
		if err := s.post(ctx, "handled", map[string]any{"ids": chunk}, &list); err != nil {
			return nil, err
		}
		all = append(all, list...)
	}
	return all, nil
}

func (s remote) Parked(ctx context.Context, after string, limit int) (page ParkedPage, err error) {
	err = s.get(ctx, "parked?"+pageOf(after, limit), &page)
	for i := range page.Parked {
		page.Parked[i].Service = s.name
	}
	return page, err
}

// pageOf returns the parameters of a page.
func pageOf(after string, limit int) string {
	q := url.Values{}
	if after != "" {
		q.Set("after", after)
	}
	if limit != 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	return q.Encode()
}

// pageOfID returns the parameters of a page that begins after an id; 0: the first page.
func pageOfID(after int64, limit int) string {
	if after == 0 {
		return pageOf("", limit)
	}
	return pageOf(strconv.FormatInt(after, 10), limit)
}

func (s remote) ParkedEvent(ctx context.Context, id string) (e ParkedEvent, err error) {
	err = s.get(ctx, "parked/"+url.PathEscape(id), &e)
	e.Service = s.name
	return e, err
}

func (s remote) DryRun(ctx context.Context, id string) (result DryRun, err error) {
	err = s.post(ctx, "parked/"+url.PathEscape(id)+"/dry-run", nil, &result)
	return result, err
}

func (s remote) Replay(ctx context.Context, r ReplayRequest) (int64, error) {
	var requested struct{ ID int64 }
	err := s.post(ctx, "replay", r, &requested)
	return requested.ID, err
}

func (s remote) Replays(ctx context.Context, after int64, limit int) (page ReplayPage, err error) {
	err = s.get(ctx, "replay?"+pageOfID(after, limit), &page)
	for i := range page.Replays {
		page.Replays[i].Service = s.name
	}
	return page, err
}

func (s remote) Relay(ctx context.Context) (r Relay, err error) {
	err = s.get(ctx, "relay", &r)
	r.Service = s.name
	return r, err
}

func (s remote) UseSource(ctx context.Context, source string) (r Relay, err error) {
	err = s.post(ctx, "relay", map[string]string{"source": source}, &r)
	r.Service = s.name
	return r, err
}

func (s remote) Breakers(ctx context.Context) (list []Breaker, err error) {
	err = s.get(ctx, "breakers", &list)
	for i := range list {
		list[i].Service = s.name
	}
	return list, err
}

func (s remote) Projections(ctx context.Context) (list []Projection, err error) {
	err = s.get(ctx, "projections", &list)
	return list, err
}

func (s remote) Rebuild(ctx context.Context, projection string) (list []Projection, err error) {
	path := fmt.Sprintf("projections/%s/rebuild", url.PathEscape(projection))
	err = s.post(ctx, path, nil, &list)
	return list, err
}
