package compose_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/quadrille-go/quadrille/fulfilment"
)

// rule is a rule for compose.yaml, with changes that break it.
type rule struct {
	name   string
	broken func(project) []string
	breaks []change
}

type change struct{ old, new string }

// complaints collects failures of a rule.
type complaints []string

func (c *complaints) unless(holds bool, format string, args ...any) {
	if !holds {
		*c = append(*c, fmt.Sprintf(format, args...))
	}
}

// minGrace is longer than a service needs to finish its work in progress: at worst twice the drain
// of its consumer, with HTTP in parallel.
const minGrace = 25 * time.Second

func rules(t *testing.T) []rule {
	t.Helper()
	known := settings(t)
	return []rule{
		{"the servers are RabbitMQ 4 and PostgreSQL 17", images, []change{{"rabbitmq:4-", "rabbitmq:3-"},
			{"image: postgres:17", "image: postgres:16"}}},
		{"every service of the topology exists", services, []change{
			{"entrypoint: [/payments]", "entrypoint: [/orders]"}, {"  shipping:\n    <<: *service",
				"  parcels:\n    <<: *service"}, {"build: .", "platform: linux/amd64"}}},
		{"every service that keeps running has a health check", health, []change{
			{"[CMD, /orders, healthcheck]", "[NONE]"}, {"[CMD, /orders, healthcheck]",
				"[CMD, /payments, healthcheck]"},
			{"check_port_listener, \"5672\"]", "check_port_listener, \"5672\"]\n      disable: true"}}},
		{"ports are published on this machine only", ports, []change{{"127.0.0.1:8083:8080", "8083:8080"},
			{"127.0.0.1:15672:", "0.0.0.0:15672:"}, {"127.0.0.1:8083:8080", "[::]:8083:8080"}}},
		{"no secret is in the file or has a default", noSecrets, []change{
			{"POSTGRES_PASSWORD_FILE: /run/secrets/postgres_password", "POSTGRES_PASSWORD: postgres"},
			{"QUADRILLE_ORDERS_AMQP_URL_FILE: /run/secrets/orders_amqp_url",
				"QUADRILLE_ORDERS_AMQP_URL: amqp://rabbitmq:5672/quadrille"},
			{"image: quadrille:local", "image: quadrille:local\n  labels: {docs: " +
				"'amqp://guest:guest@rabbitmq'}"},
			{"name: quadrille\n", "name: ${NAME:-quadrille}\n"},
			{"{file: ./secrets/tokens}", "{environment: TOKENS}"},
			{"{file: ./secrets/tokens}", "{file: ./deploy/tokens}"}}},
		{"a service reads each of its settings",
			func(p project) []string { return environment(p, known) }, []change{
				{"QUADRILLE_SHIPPING_LISTEN", "QUADRILLE_SHIPPING_LISTENS"},
				{"QUADRILLE_SHIPPING_LISTEN", "QUADRILLE_ORDERS_LISTEN"},
				{"QUADRILLE_TOKENS_FILE", "QUADRILLE_TOKENS"}, {"QUADRILLE_ORDERS_DATABASE_URL_FILE",
					"QUADRILLE_ORDERS_DATABASE_FILE"}}},
		{"every secret that is named is mounted", mounts, []change{
			{"secrets: [orders_database_url, orders_amqp_url, tokens]",
				"secrets: [orders_database_url, orders_amqp_url]"},
			{"target: operator.env", "target: operator"},
			{"target: definitions.json", "target: definitions"}, {"secrets: [postgres_password]",
				"labels: {}"}}},
		{"containers have few rights", rights, []change{
			{"init: true", "init: false"}, {"read_only: true", "read_only: false"},
			{"cap_drop: [ALL]", "cap_drop: [NET_RAW]"},
			{"no-new-privileges:true", "no-new-privileges:false"},
			{"image: rabbitmq:4-management\n    user: rabbitmq", "image: rabbitmq:4-management"},
			{"cap_drop: [ALL]", "cap_drop: [ALL]\n  cap_add: [NET_ADMIN]"},
			{"cap_drop: [ALL]", "cap_drop: [ALL]\n  privileged: true"}}},
		{"services restart and have time to finish", restarts, []change{
			{"restart: unless-stopped", "restart: \"no\""},
			{"stop_grace_period: 45s", "stop_grace_period: 10s"}, {"hostname: rabbitmq", "labels: {}"}}},
		{"every service waits for its dependencies", order, []change{
			{"databases: {condition: service_completed_successfully}",
				"databases: {condition: service_started}"},
			{"rabbitmq: {condition: service_healthy}", "rabbitmq: {condition: service_started}"}}},
	}
}

func images(p project) []string {
	var c complaints
	for _, name := range []string{"postgres", "databases"} {
		c.unless(p.Services[name].Image == "postgres:17", "%s has the image %q", name,
			p.Services[name].Image)
	}
	c.unless(p.Services["rabbitmq"].Image == "rabbitmq:4-management", "rabbitmq has the image %q",
		p.Services["rabbitmq"].Image)
	return c
}

func services(p project) []string {
	var c, want complaints
	for _, s := range fulfilment.Topology().Services {
		want = append(want, s.Name)
		found := p.Services[s.Name]
		c.unless(slices.Equal(found.Entrypoint, types.ShellCommand{"/" + s.Name}), "%s runs %q", s.Name,
			found.Entrypoint)
		c.unless(found.Build != nil && found.Image != "", "%s is not built", s.Name)
	}
	slices.Sort(want)
	c.unless(slices.Equal(p.services(), want), "the services are %q, want %q", p.services(), want)
	return c
}

func health(p project) []string {
	var c complaints
	for name, s := range p.Services {
		check := s.HealthCheck
		if p.oneShot(name) {
			continue
		}
		// CMD, not CMD-SHELL: the image of the services has no shell.
		if check == nil || check.Disable || len(check.Test) < 2 || check.Test[0] != "CMD" {
			c.unless(false, "%s has no health check", name)
			continue
		}
		if slices.Contains(p.programs(), name) {
			c.unless(slices.Equal(check.Test[1:], []string{"/" + name, "healthcheck"}),
				"%s is checked by %q", name, check.Test)
		}
	}
	return c
}

func ports(p project) []string {
	var c complaints
	n := 0
	for name, s := range p.Services {
		for _, port := range s.Ports {
			n++
			c.unless(port.HostIP == "127.0.0.1", "%s publishes %s on %q", name, port.Published, port.HostIP)
		}
		c.unless(s.NetworkMode == "", "%s uses the network %q", name, s.NetworkMode)
	}
	c.unless(n >= 5, "only %d published ports were found, want at least 5", n)
	return c
}

var (
	credentials = regexp.MustCompile(`://[^/\s'"]*:[^/\s'"]*@`)
	secretName  = regexp.MustCompile(`(?i)(pass|secret|token|cookie|_url)`)
)

func noSecrets(p project) []string {
	var c complaints
	c.unless(!credentials.MatchString(p.text), "compose.yaml contains a URL with a password")
	c.unless(!strings.Contains(strings.ReplaceAll(p.text, "$$", ""), "${"),
		"compose.yaml contains a variable, which may have a default")
	for name, s := range p.Services {
		for variable, value := range s.Environment {
			simulated := value != nil && *value == "http://simulators:8080" // needs no secret
			c.unless(!secretName.MatchString(variable) || strings.HasSuffix(variable, "_FILE") ||
				simulated, "%s has %s in its environment", name, variable)
		}
	}
	for name, secret := range p.Secrets {
		folder := filepath.Join(p.WorkingDir, "secrets") + string(filepath.Separator)
		c.unless(strings.HasPrefix(secret.File, folder),
			"the secret %s is %q, which is not a file in secrets/", name, secret.File)
	}
	c.unless(len(p.Secrets) > 0, "compose.yaml has no secrets")
	return c
}

// settings returns string literals from the source: those of internal/boot under "boot", and those
// of the main function of each service under its name. The names of the settings are among them.
func settings(t *testing.T) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	of := func(key, path string) {
		parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, path), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			if literal, ok := n.(*ast.BasicLit); ok && literal.Kind == token.STRING {
				if text, err := strconv.Unquote(literal.Value); err == nil {
					found[key] = append(found[key], text)
				}
			}
			return true
		})
	}
	of("boot", "internal/boot/boot.go")
	of("boot", "internal/boot/listen.go")
	of("boot", "internal/boot/service.go")
	for _, s := range fulfilment.Topology().Services {
		of(s.Name, filepath.Join("cmd", s.Name, "main.go"))
	}
	return found
}

func environment(p project, known map[string][]string) []string {
	var c complaints
	for _, name := range p.services() {
		prefix := "QUADRILLE_" + strings.ToUpper(name) + "_"
		has := func(variable string) bool {
			_, direct := p.Services[name].Environment[variable]
			_, file := p.Services[name].Environment[variable+"_FILE"]
			return direct || file
		}
		for _, required := range []string{prefix + "DATABASE_URL", prefix + "AMQP_URL", prefix +
			"LISTEN"} {
			c.unless(has(required), "%s lacks %s", name, required)
		}
		// A service listens for other containers, which needs tokens.
		c.unless(has("QUADRILLE_TOKENS_FILE"), "%s lacks QUADRILLE_TOKENS_FILE", name)
		for variable := range p.Services[name].Environment {
			c.unless(reads(known, name, prefix, variable) ||
				reads(known, name, prefix, strings.TrimSuffix(variable, "_FILE")),
				"%s does not read %s", name, variable)
		}
	}
	return c
}

func reads(known map[string][]string, service, prefix, variable string) bool {
	own, isOwn := strings.CutPrefix(variable, prefix)
	return slices.Contains(known["boot"], variable) || slices.Contains(known[service], variable) ||
		isOwn && slices.Contains(known["boot"], own)
}

var mounted = regexp.MustCompile(`/run/secrets/[A-Za-z0-9._-]+`)

// secretPaths returns the paths of secrets in the environment and the command of a service, and in
// conf.
func secretPaths(s types.ServiceConfig, conf string) []string {
	texts := slices.Concat(s.Entrypoint, s.Command, []string{conf})
	for _, value := range s.Environment {
		if value != nil {
			texts = append(texts, *value)
		}
	}
	return mounted.FindAllString(strings.Join(texts, "\n"), -1)
}

func mounts(p project) []string {
	var c complaints
	for name, s := range p.Services {
		conf := ""
		if name == "rabbitmq" { // its configuration names a file, too
			content, err := os.ReadFile(filepath.Join(root, "deploy", "rabbitmq.conf"))
			c.unless(err == nil && len(s.Configs) == 1, "the settings of rabbitmq: %d, %v", len(s.Configs),
				err)
			conf = string(content)
		}
		var targets []string
		for _, secret := range s.Secrets {
			targets = append(targets, targetOf(secret))
			_, declared := p.Secrets[secret.Source]
			c.unless(declared, "%s mounts %s, which is not declared", name, secret.Source)
		}
		for _, path := range secretPaths(s, conf) {
			c.unless(slices.Contains(targets, path), "%s names %s, but mounts %q", name, path, targets)
		}
		c.unless(len(secretPaths(s, conf)) >= len(s.Secrets), "%s mounts more than it uses", name)
	}
	return c
}

func targetOf(secret types.ServiceSecretConfig) string {
	target := secret.Target
	if target == "" {
		target = secret.Source
	}
	if !filepath.IsAbs(target) {
		target = "/run/secrets/" + target
	}
	return target
}

func rights(p project) []string {
	var c complaints
	for name, s := range p.Services {
		c.unless(s.Init != nil && *s.Init, "%s has no init process", name)
		c.unless(s.ReadOnly, "%s has a writable root file system", name)
		c.unless(slices.Equal(s.CapDrop, []string{"ALL"}) && len(s.CapAdd) == 0 &&
			!s.Privileged, "%s has capabilities", name)
		c.unless(slices.Contains(s.SecurityOpt, "no-new-privileges:true"), "%s may gain privileges", name)
		// The user of the services is set in their image: see TestDockerfile.
		c.unless(s.Build != nil || s.User != "" && s.User != "root" && !strings.HasPrefix(s.User, "0"),
			"%s runs as %q", name, s.User)
	}
	return c
}

func restarts(p project) []string {
	var c complaints
	for name, s := range p.Services {
		if p.oneShot(name) {
			continue
		}
		c.unless(s.Restart == types.RestartPolicyUnlessStopped, "%s: restart is %q", name, s.Restart)
		grace := time.Duration(0)
		if s.StopGracePeriod != nil {
			grace = time.Duration(*s.StopGracePeriod)
		}
		c.unless(grace > minGrace, "%s has %s to stop", name, grace)
	}
	// RabbitMQ names its data directory after the host.
	c.unless(p.Services["rabbitmq"].Hostname != "", "rabbitmq would lose its data with its container")
	return c
}

func order(p project) []string {
	var c complaints
	const healthy, done = types.ServiceConditionHealthy, types.ServiceConditionCompletedSuccessfully
	needs := map[string]map[string]string{"databases": {"postgres": healthy},
		"operator": {"rabbitmq": healthy}}
	for _, name := range p.services() {
		needs[name] = map[string]string{"rabbitmq": healthy, "postgres": healthy, "databases": done,
			"operator": done}
	}
	for name, conditions := range needs {
		for on, condition := range conditions {
			c.unless(p.Services[name].DependsOn[on].Condition == condition,
				"%s does not wait until %s is %s", name, on, condition)
		}
	}
	return c
}
