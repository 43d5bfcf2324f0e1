package localrun

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// manageTimeout bounds one call. The API may hang while the broker starts, and must not block
// a test.
const manageTimeout = 30 * time.Second

// Manage calls RabbitMQ's management API, for example with PUT and "/api/vhosts/x". It sends in and
// decodes the answer into out, both as JSON; both may be nil. An answer other than 2xx is an error.
func Manage(ctx context.Context, managementURL, method, path string, in, out any) error {
	base, err := url.Parse(managementURL)
	if err != nil {
		// err contains the URL, and therefore the password.
		return fmt.Errorf("%s %s: the management URL cannot be parsed", method, path)
	}
	ctx, cancel := context.WithTimeout(ctx, manageTimeout)
	defer cancel()
	account := base.User
	base.User = nil
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("%s %s: %w", method, path, err)
		}
		body = bytes.NewReader(data)
	}
	request, err := http.NewRequestWithContext(ctx, method, base.String()+path, body)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	password, _ := account.Password()
	request.SetBasicAuth(account.Username(), password)
	if in != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	defer response.Body.Close() //nolint:errcheck // only read
	if response.StatusCode/100 != 2 {
		reason, _ := io.ReadAll(io.LimitReader(response.Body, 1<<10))
		return fmt.Errorf("%s %s: %s: %s", method, path, response.Status, reason)
	}
	if out == nil {
		_, err = io.Copy(io.Discard, response.Body)
	} else {
		err = json.NewDecoder(response.Body).Decode(out)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	return nil
}
