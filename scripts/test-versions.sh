#!/bin/sh
# Runs the tests, or the command in the arguments, on the RabbitMQ and PostgreSQL of Debian 13. It runs
# them in a tree of that release, which debootstrap makes once below QUADRILLE_TREES (default
# /var/cache/quadrille). Remove the tree to make it again with newer packages.
#
# The checkout, Go and its caches are mounted into the tree. The processes have a namespace of their
# own, so that all of them, servers included, end together with this script.
set -eu

suite=trixie
tree=${QUADRILLE_TREES:-/var/cache/quadrille}/$suite
checkout=$(cd "$(dirname "$0")/.." && pwd)
go=${GO:-go}

# fail prints on standard error why the tests did not run.
fail() {
	echo "test-versions: $*" >&2
	exit 1
}

[ "$(id -u)" -eq 0 ] || fail "debootstrap, mount and chroot need root. Run: sudo make test-versions"

# mirror prints the mirror of Debian that apt uses on this machine.
mirror() {
	[ -z "${DEBIAN_MIRROR:-}" ] || { echo "$DEBIAN_MIRROR"; return; }
	apt-get indextargets --format '$(LABEL) $(REPO_URI)' "Created-By: Packages" "Origin: Debian" |
		sed -n 's/^Debian //p' | sort -u | head -n 1
}

# make_tree makes the tree under a temporary name, so that an interrupted run leaves no half of it.
# The packages of the servers come without their services: nothing starts in the tree by itself.
make_tree() {
	command -v debootstrap >/dev/null || fail "debootstrap is missing: apt-get install debootstrap"
	from=$(mirror)
	[ -n "$from" ] || fail "apt knows no mirror of Debian: set DEBIAN_MIRROR to one"
	mkdir -p "${tree%/*}"
	new=$(mktemp -d "$tree.XXXXXX")
	trap 'rm -rf "$new"' EXIT
	echo "test-versions: making a Debian 13 tree in $tree" >&2
	debootstrap --variant=minbase --include=ca-certificates "$suite" "$new" "$from" >"$tree.log" 2>&1 ||
		fail "debootstrap failed, see $tree.log"
	printf '#!/bin/sh\nexit 101\n' >"$new/usr/sbin/policy-rc.d"
	chmod 755 "$new/usr/sbin/policy-rc.d"
	mkdir -p "$new/etc/postgresql-common"
	echo 'create_main_cluster = false' >"$new/etc/postgresql-common/createcluster.conf"
	unshare --mount --pid --fork --kill-child sh -eu -c '
		mount -t proc proc "$1/proc"
		exec chroot "$1" env DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 apt-get -q -y \
			--no-install-recommends install postgresql-17 postgresql-contrib rabbitmq-server \
			pgbouncer gcc libc6-dev make git procps' sh "$new" >>"$tree.log" 2>&1 ||
		fail "apt-get failed in the tree, see $tree.log"
	rm -f "$new"/var/cache/apt/archives/*.deb
	chmod 755 "$new"
	mv "$new" "$tree"
	trap - EXIT
}

[ -d "$tree" ] || make_tree
dpkg-query --admindir="$tree/var/lib/dpkg" --show postgresql-17 rabbitmq-server pgbouncer >&2

goroot=$("$go" env GOROOT) modules=$("$go" env GOMODCACHE) cache=$("$go" env GOCACHE)
[ "$#" -gt 0 ] || set -- sh -c 'RACE= GOWORK=$PWD/tests/modules.work scripts/test.sh -count 1 ./... ./tests/compose'

# The repository of a worktree lies outside the checkout.
repository=$(git -C "$checkout" rev-parse --path-format=absolute --git-common-dir 2>/dev/null) ||
	repository=$checkout
scratch=$(mktemp -d "$tree/var/tmp/run.XXXXXX")
child=
# finish ends the processes of the namespace, with which its mounts end, and removes their files.
finish() {
	status=$?
	[ -z "$child" ] || kill "$child" 2>/dev/null || true
	[ -z "$child" ] || wait "$child" || true
	rm -rf --one-file-system "$scratch"
	exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
chmod 1777 "$scratch"
export tree checkout goroot modules cache repository scratch
unshare --mount --pid --fork --kill-child --mount-proc sh -eu -c '
	mount --make-rprivate /
	mount --bind "$scratch" "$tree/tmp"
	mount --rbind /proc "$tree/proc"
	mount --rbind /dev "$tree/dev"
	mount --rbind /sys "$tree/sys"
	for dir in "$goroot" "$modules" "$cache" "$repository" "$checkout"; do
		mkdir -p "$tree$dir"
		mount --bind "$dir" "$tree$dir"
	done
	for file in resolv.conf hosts; do cat "/etc/$file" >"$tree/etc/$file"; done
	# The shell stays as the first process of the namespace, since it reaps the others: PostgreSQL takes
	# a zombie for a server that still runs.
	chroot "$tree" env -i HOME=/root LC_ALL=C.UTF-8 TERM=dumb GO=go GOFLAGS="${GOFLAGS:-}" \
		GOMODCACHE="$modules" GOCACHE="$cache" GOTOOLCHAIN=local \
		PATH="$goroot/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
		sh -eu -c "cd \"\$0\" && exec \"\$@\"" "$checkout" "$@"
	exit $?' sh "$@" &
child=$!
wait "$child"
