package localrun

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
)

// StandbyCommand copies the data of a running PostgreSQL into a new directory, and returns the
// command that runs the copy as a standby named name. The standby follows the server at the URL,
// which must be that of a superuser, and listens on a port of 127.0.0.1.
func StandbyCommand(ctx context.Context, url, name, dir string, port int) (*exec.Cmd, error) {
	attr, uid, gid, err := PostgresAccount()
	if err != nil {
		return nil, err
	}
	if err := makeDir(dir, uid, gid); err != nil {
		return nil, err
	}
	bin, data := filepath.Dir(newest(postgresPattern)), filepath.Join(dir, "data")
	copying := exec.CommandContext(ctx, filepath.Join(bin, "pg_basebackup"), "-D", data, "-R",
		"--checkpoint=fast", "--no-sync", "-d", url+"&application_name="+name)
	copying.Dir, copying.Env, copying.SysProcAttr = dir, environment(dir), attr
	if output, err := copying.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("copy the data of PostgreSQL: %w: %s", err, output)
	}
	// The copy contains the settings of a new data directory, not those of the server.
	config := filepath.Join(dir, "quadrille.conf")
	if err := WriteFor(config, fmt.Sprintf(postgresSettings, port), uid, gid); err != nil {
		return nil, err
	}
	cmd := exec.Command(filepath.Join(bin, "postgres"), "-D", data, "-c", "config_file="+config)
	cmd.Dir, cmd.Env, cmd.SysProcAttr = dir, environment(dir), attr
	return cmd, nil
}
