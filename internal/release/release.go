// Package release names the build of the program that runs.
package release

import "runtime/debug"

// unknown is the name of a build without a version, such as that of a test.
const unknown = "(devel)"

// Name returns the version of the program's main module: of a tag, or of a commit.
func Name() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return unknown
}
