package compose_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/quadrille-go/quadrille/fulfilment"
	"github.com/quadrille-go/quadrille/topology"
)

// definitions is the file that RabbitMQ loads.
type definitions struct {
	VHosts []struct {
		Name string `json:"name"`
	} `json:"vhosts"`
	Users []struct {
		Name      string   `json:"name"`
		Hash      []byte   `json:"password_hash"`
		Algorithm string   `json:"hashing_algorithm"`
		Tags      []string `json:"tags"`
	} `json:"users"`
	Permissions []struct {
		User  string `json:"user"`
		VHost string `json:"vhost"`
		topology.Permission
	} `json:"permissions"`
}

// matches reports whether RabbitMQ accepts a password for a hash.
func matches(hash []byte, password string) bool {
	if len(hash) != 4+sha256.Size {
		return false
	}
	sum := sha256.Sum256(append(slices.Clone(hash[:4]), password...))
	return bytes.Equal(sum[:], hash[4:])
}

// secrets runs deploy/secrets.sh. It also reads the file, because otherwise go test would not
// notice a change of it and report a cached result.
func secrets(t *testing.T, dir string, settings ...string) {
	t.Helper()
	read(t, "deploy/secrets.sh")
	script := exec.Command("sh", filepath.Join(root, "deploy", "secrets.sh"), dir)
	script.Env = append(os.Environ(), settings...)
	if output, err := script.CombinedOutput(); err != nil {
		t.Fatalf("secrets.sh: %v\n%s", err, output)
	}
}

func content(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

func parse(t *testing.T, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal("a secret is not a valid URL") // err would contain the secret
	}
	return u
}

func decode(t *testing.T, dir string) definitions {
	t.Helper()
	var d definitions
	decoder := json.NewDecoder(strings.NewReader(content(t, filepath.Join(dir, "definitions.json"))))
	if err := decoder.Decode(&d); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestSecretsFollowFromTheTopology(t *testing.T) {
	dir := t.TempDir()
	secrets(t, dir)
	d := decode(t, dir)
	sql := content(t, filepath.Join(dir, "databases.sql"))
	if !strings.HasPrefix(sql, "REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC;\n") ||
		strings.Contains(sql, "REPLICATION") {
		t.Errorf("the roles have more rights than they need: %s", sql)
	}
	operator := content(t, filepath.Join(dir, "operator.env"))
	if len(d.VHosts) != 1 || d.VHosts[0].Name != "quadrille" {
		t.Errorf("virtual hosts %v", d.VHosts)
	}
	hashes, rights := map[string][]byte{}, map[string]topology.Permission{}
	for _, u := range d.Users {
		hashes[u.Name] = u.Hash
		if admin := slices.Contains(u.Tags, "administrator"); admin != (u.Name == "operator") ||
			u.Algorithm != "rabbit_password_hashing_sha256" {
			t.Errorf("account %s: tags %q, hashed with %s", u.Name, u.Tags, u.Algorithm)
		}
	}
	for _, p := range d.Permissions {
		rights[p.User] = p.Permission
		if p.VHost != "quadrille" {
			t.Errorf("%s has permissions in the virtual host %s", p.User, p.VHost)
		}
	}
	names := []string{"operator"}
	for _, s := range fulfilment.Topology().Services {
		names = append(names, s.Name)
		if rights[s.Name] != topology.PermissionOf(s.Name) {
			t.Errorf("%s has %+v, want %+v", s.Name, rights[s.Name], topology.PermissionOf(s.Name))
		}
		amqp, database := parse(t, content(t, filepath.Join(dir, s.Name+"_amqp_url"))),
			parse(t, content(t, filepath.Join(dir, s.Name+"_database_url")))
		password, _ := amqp.User.Password()
		if !matches(hashes[s.Name], password) || amqp.User.Username() != s.Name ||
			amqp.Host != "rabbitmq:5672" || amqp.Path != "/quadrille" {
			t.Errorf("%s could not log in at %s", s.Name, amqp.Redacted())
		}
		password, _ = database.User.Password()
		if !strings.Contains(sql, `ALTER ROLE "`+s.Name+`" PASSWORD '`+password+`';`) ||
			database.User.Username() != s.Name ||
			database.Host != "postgres:5432" || database.Path != "/"+s.Name ||
			database.Query().Get("sslmode") == "" {
			t.Errorf("%s could not log in at %s", s.Name, database.Redacted())
		}
		if setting := "export QUADRILLE_" + strings.ToUpper(s.Name) + "_URL='http://" + s.Name +
			":8080'"; !strings.Contains(operator, setting) {
			t.Errorf("operator.env lacks the address of %s", s.Name)
		}
	}
	password := content(t, filepath.Join(dir, "passwords", "operator"))
	if !matches(hashes["operator"], password) ||
		!strings.Contains(operator, "export QUADRILLE_AMQP_URL='amqp://operator:"+password+
			"@rabbitmq:5672/quadrille'") {
		t.Error("the operator could not log in at the broker")
	}
	if len(hashes) != len(names) || len(rights) != len(names) {
		t.Errorf("%d accounts with %d permissions, want exactly %q", len(hashes), len(rights), names)
	}
	line := strings.Fields(strings.Split(content(t, filepath.Join(dir, "tokens")), "\n")[1])
	if len(line) != 3 || line[2] != "admin" {
		t.Fatalf("the tokens line of the operator is %q, want three words and the role admin", line)
	}
	client, token := line[0], line[1]
	if client != "operator" || !strings.Contains(operator, "export QUADRILLE_TOKEN='"+token+"'") {
		t.Error("the token of operator.env is not in the tokens file")
	}
}

// A role may stream the log of the server, which is that of all its databases, only where it is
// asked for.
func TestRolesStreamOnlyWhereItIsAskedFor(t *testing.T) {
	dir := t.TempDir()
	secrets(t, dir, "STREAM=1")
	sql := content(t, filepath.Join(dir, "databases.sql"))
	for _, s := range fulfilment.Topology().Services {
		if !strings.Contains(sql, `ALTER ROLE "`+s.Name+`" REPLICATION PASSWORD `) {
			t.Errorf("%s may not stream: %s", s.Name, sql)
		}
	}
	secrets(t, dir)
	if sql := content(t, filepath.Join(dir, "databases.sql")); strings.Contains(sql, " REPLICATION") {
		t.Errorf("roles may stream, though nobody has asked for it: %s", sql)
	}
}

// hexadecimal is a secret of 192 bits.
var hexadecimal = regexp.MustCompile(`\b[0-9a-f]{48}\b`)

func TestSecretsAreRandomAndClosed(t *testing.T) {
	seen := map[string]string{}
	for _, dir := range []string{filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")} {
		secrets(t, dir)
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("the folder has the mode %v (%v), want 0700", info.Mode(), err)
		}
		passwords, err := filepath.Glob(filepath.Join(dir, "passwords", "*"))
		if err != nil || len(passwords) != 6 {
			t.Fatalf("passwords %q, %v", passwords, err)
		}
		for _, path := range append(passwords, filepath.Join(dir, "tokens")) {
			secret := hexadecimal.FindString(content(t, path))
			if secret == "" || seen[secret] != "" {
				t.Errorf("%s has no secret of its own; %q has the same", path, seen[secret])
			}
			seen[secret] = path
		}
	}
}

// TestSecretsForContainers checks that each file of compose.yaml exists and that the user of a
// container, who owns no files outside it, may read it.
func TestSecretsForContainers(t *testing.T) {
	dir := t.TempDir()
	secrets(t, filepath.Join(dir, "secrets"))
	p, err := load(dir, read(t, "compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for name, secret := range p.Secrets {
		info, err := os.Stat(secret.File)
		if err != nil || info.Mode().Perm() != 0o644 || info.Size() == 0 {
			t.Errorf("the secret %s: %v, %v", name, info, err)
		}
	}
	for name, file := range p.Configs {
		if _, err := os.Stat(filepath.Join(root, strings.TrimPrefix(file.File, dir))); err != nil {
			t.Errorf("the config %s: %v", name, err)
		}
	}
}

// TestSecretsAreKept checks that a second run keeps existing passwords and tokens, which running
// services use.
func TestSecretsAreKept(t *testing.T) {
	dir := t.TempDir()
	secrets(t, dir)
	const clients = "# ours\noperator 0123456789abcdef\nshop fedcba9876543210\n"
	if err := os.WriteFile(filepath.Join(dir, "tokens"), []byte(clients), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "passwords", "shipping")); err != nil {
		t.Fatal(err)
	}
	before := map[string]string{}
	for _, s := range fulfilment.Topology().Services {
		before[s.Name] = content(t, filepath.Join(dir, s.Name+"_amqp_url"))
	}
	secrets(t, dir)
	for name, url := range before {
		if same := url == content(t, filepath.Join(dir, name+"_amqp_url")); same != (name != "shipping") {
			t.Errorf("%s still has its old password: %t", name, same)
		}
	}
	if !strings.Contains(content(t, filepath.Join(dir, "operator.env")),
		"QUADRILLE_TOKEN='0123456789abcdef'") ||
		content(t, filepath.Join(dir, "tokens")) != strings.TrimSpace(clients) {
		t.Error("the tokens were not kept, or operator.env has another token")
	}
	left, err := filepath.Glob(filepath.Join(dir, "*.new"))
	if err != nil || len(left) > 0 {
		t.Errorf("temporary files were left: %q, %v", left, err)
	}
}

// TestSecretsFailCompletely checks that a missing tool never leads to an empty secret.
func TestSecretsFailCompletely(t *testing.T) {
	tools := []string{"od", "tr", "cut", "fold", "base64", "sha256sum", "awk", "cat", "chmod", "mkdir",
		"mv", "dirname"}
	for _, missing := range append(tools, "none") {
		bin := t.TempDir()
		for _, tool := range tools {
			path, err := exec.LookPath(tool)
			if err != nil {
				t.Fatal(err)
			}
			if tool != missing {
				if err := os.Symlink(path, filepath.Join(bin, tool)); err != nil {
					t.Fatal(err)
				}
			}
		}
		dir := filepath.Join(t.TempDir(), "secrets")
		script := exec.Command("/bin/sh", filepath.Join(root, "deploy", "secrets.sh"), dir)
		script.Env = []string{"PATH=" + bin}
		output, err := script.CombinedOutput()
		// The script needs dirname only if no folder is given.
		if wrong := missing != "none" && missing != "dirname"; (err != nil) != wrong {
			t.Errorf("without %s: %v\n%s", missing, err, output)
		}
		walk := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || strings.HasSuffix(path, ".new") {
				return nil // a script that failed early has written nothing
			}
			if info, err := d.Info(); err != nil || info.Size() == 0 {
				t.Errorf("without %s, %s is empty", missing, path)
			}
			return nil
		})
		if walk != nil {
			t.Error(walk)
		}
	}
}

func TestHashIsThatOfRabbitMQ(t *testing.T) {
	// This is the example in RabbitMQ's documentation.
	hash, err := base64.StdEncoding.DecodeString("kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR")
	if err != nil || !matches(hash, "test12") || matches(hash, "test13") {
		t.Error("matches does not compute hashes as RabbitMQ does")
	}
}
