#!/bin/sh
# Installs the servers that the tests, the demo and `quadrille up` start privately:
# RabbitMQ, PostgreSQL and PgBouncer, from the packages of Debian. It installs only
# missing packages, starts no daemon and creates no cluster. If nothing is missing,
# it prints nothing.
set -eu

# Servers whose addresses are given need no installation.
if [ -n "${QUADRILLE_AMQP_URL:-}" ] && [ -n "${QUADRILLE_POSTGRES_URL:-}" ]; then
	exit 0
fi

# any FILE... succeeds when one of the files (an expanded pattern) is executable.
any() {
	for file; do
		[ -x "$file" ] && return 0
	done
	return 1
}

# user NAME succeeds when the user exists. A package creates its user after its
# programs are unpacked, so the programs alone do not prove that it is installed.
user() {
	id "$1" >/dev/null 2>&1
}

# missing prints the packages that must be installed.
missing() {
	any /usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server && user rabbitmq || printf ' rabbitmq-server'
	any /usr/lib/postgresql/*/bin/postgres && user postgres || printf ' postgresql'
	any /usr/sbin/pgbouncer || printf ' pgbouncer'
}

lock=/run/quadrille-install.lock
log=/run/quadrille-install.log
policy=/usr/sbin/policy-rc.d
cluster=/etc/postgresql-common/createcluster.conf
saved=.quadrille-saved

# stale succeeds when temporary changes of a run exist: of a run that was killed,
# or of one that is in progress.
stale() {
	[ -e "$policy$saved" ] || [ -e "$cluster$saved" ] || grep -q -s 'quadrille install-servers' "$policy"
}

# Wait for a run that is in progress.
if [ -r "$lock" ]; then
	exec 9<"$lock"
	flock -s 9
	exec 9<&-
fi
packages=$(missing)
if [ -z "$packages" ] && { [ "$(id -u)" -ne 0 ] || ! stale; }; then
	exit 0
fi

# fail prints on standard error why nothing was installed.
fail() {
	echo "install-servers: $*" >&2
	exit 1
}

if [ -n "$packages" ] && ! command -v apt-get >/dev/null 2>&1; then
	fail "missing:$packages; this system has no apt-get. Install these packages with its package manager," \
		"or set QUADRILLE_AMQP_URL, QUADRILLE_MANAGEMENT_URL and QUADRILLE_POSTGRES_URL to running servers."
fi
if [ "$(id -u)" -ne 0 ]; then
	fail "missing:$packages; the installation needs root. Run: sudo $0"
fi

# Two simultaneous runs would restore each other's temporary files.
exec 9>"$lock"
flock 9

# restore undoes the temporary changes. It runs at the end, also of a failed or
# interrupted run, and at the start, in case the previous run was killed.
restore() {
	if [ -e "$policy$saved" ]; then
		mv -f "$policy$saved" "$policy"
	elif [ -e "$policy" ] && grep -q 'quadrille install-servers' "$policy"; then
		rm -f "$policy"
	fi
	if [ -e "$cluster$saved" ]; then
		mv -f "$cluster$saved" "$cluster"
	fi
}
restore
packages=$(missing)
[ -n "$packages" ] || exit 0
trap restore EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# No package may start a daemon: these servers are started only privately.
if [ -e "$policy" ]; then
	cp -p "$policy" "$policy$saved.new"
	mv "$policy$saved.new" "$policy$saved"
fi
printf '#!/bin/sh\n# quadrille install-servers (temporary)\nexit 101\n' >"$policy"
chmod 755 "$policy"

# No package may create a cluster. A file that is new stays; one that existed is
# restored.
case $packages in
*postgresql*)
	mkdir -p "${cluster%/*}"
	if [ -e "$cluster" ]; then
		cp -p "$cluster" "$cluster$saved.new"
		mv "$cluster$saved.new" "$cluster$saved"
	fi
	echo 'create_main_cluster = false' >>"$cluster"
	;;
esac

# update refreshes the package lists. While another program does so it retries for
# five minutes, because the lock of the lists has no time-out, unlike that of dpkg.
update() {
	tries=30
	until LC_ALL=C apt-get -q -q update >"$log" 2>&1 9>&-; do
		tries=$((tries - 1))
		if [ "$tries" -eq 0 ] || ! grep -q 'Could not get lock' "$log"; then
			cat "$log" >&2
			return 1
		fi
		sleep 10
	done
}

# The package `postgresql` of Debian also installs a service. The versioned package
# contains everything needed, if it exists under this name.
export DEBIAN_FRONTEND=noninteractive
echo "install-servers: installing$packages from the packages of Debian" >&2
update ||
	echo "install-servers: apt-get update failed; trying the existing package lists" >&2
case $packages in
*postgresql*)
	if apt-cache show postgresql-15 >/dev/null 2>&1; then
		packages=$(echo "$packages" | sed 's/postgresql/postgresql-15/')
	fi
	;;
esac
# shellcheck disable=SC2086 # $packages contains several words
apt-get -q -q -y -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 \
	-o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold \
	install --no-install-recommends $packages >"$log" 2>&1 9>&- || {
	tail -n 30 "$log" >&2
	fail "apt-get could not install$packages (its output is in $log)"
}
packages=$(missing)
[ -z "$packages" ] || fail "installed, but still missing:$packages"
