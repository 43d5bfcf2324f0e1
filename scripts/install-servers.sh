#!/bin/sh
# Installs the servers that the tests, the demo and `quadrille up` start
# privately: RabbitMQ, PostgreSQL and PgBouncer, from Debian's packages. It installs only
# what is lacking, starts no daemon and creates no cluster. When everything is
# there it says nothing.
set -eu

# Servers that are given by their addresses need nothing installed.
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

# user NAME succeeds when there is one. The programs of a package are there as
# soon as it is unpacked, its user comes later.
user() {
	id "$1" >/dev/null 2>&1
}

# lacking prints what must be installed, by package.
lacking() {
	any /usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server && user rabbitmq || printf ' rabbitmq-server'
	any /usr/lib/postgresql/*/bin/postgres && user postgres || printf ' postgresql'
	any /usr/sbin/pgbouncer || printf ' pgbouncer'
}

lock=/run/quadrille-install.lock
log=/run/quadrille-install.log
policy=/usr/sbin/policy-rc.d
cluster=/etc/postgresql-common/createcluster.conf
saved=.quadrille-saved

# stale succeeds when there are temporary changes of a run: of one that was
# killed, unless one is under way.
stale() {
	[ -e "$policy$saved" ] || [ -e "$cluster$saved" ] || grep -q -s 'quadrille install-servers' "$policy"
}

# Another run may be in the midst of it.
if [ -r "$lock" ]; then
	exec 9<"$lock"
	flock -s 9
	exec 9<&-
fi
packages=$(lacking)
if [ -z "$packages" ] && { [ "$(id -u)" -ne 0 ] || ! stale; }; then
	exit 0
fi

# fail explains on the standard error output why nothing was installed.
fail() {
	echo "install-servers: $*" >&2
	exit 1
}

if [ -n "$packages" ] && ! command -v apt-get >/dev/null 2>&1; then
	fail "lacking:$packages; there is no apt-get here. Install these with your system's package manager," \
		"or set QUADRILLE_AMQP_URL, QUADRILLE_MANAGEMENT_URL and QUADRILLE_POSTGRES_URL to servers that run already."
fi
if [ "$(id -u)" -ne 0 ]; then
	fail "lacking:$packages; installing needs root. Run: sudo $0"
fi

# Two runs at once would restore each other's temporary files.
exec 9>"$lock"
flock 9

# restore undoes the temporary changes; it also serves after a failed or
# interrupted run, and at the next run after a killed one.
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
packages=$(lacking)
[ -n "$packages" ] || exit 0
trap restore EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# No package may start a daemon: these servers are only ever started privately.
if [ -e "$policy" ]; then
	cp -p "$policy" "$policy$saved.new"
	mv "$policy$saved.new" "$policy$saved"
fi
printf '#!/bin/sh\n# quadrille install-servers (temporary)\nexit 101\n' >"$policy"
chmod 755 "$policy"

# No package may create a cluster. A file that was not there before stays (the
# package would have asked about it), one that was there is put back.
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

# update refreshes the package lists, again for five minutes when another program
# is doing so: their lock has no time-out, as that of dpkg has.
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

# Debian's `postgresql` also brings a service of its own; the versioned package
# has all that is needed, where its name is known.
export DEBIAN_FRONTEND=noninteractive
echo "install-servers: installing$packages from Debian's packages" >&2
update ||
	echo "install-servers: apt-get update failed; trying with the package lists that are here" >&2
case $packages in
*postgresql*)
	if apt-cache show postgresql-15 >/dev/null 2>&1; then
		packages=$(echo "$packages" | sed 's/postgresql/postgresql-15/')
	fi
	;;
esac
# shellcheck disable=SC2086 # the packages are several words
apt-get -q -q -y -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 \
	-o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold \
	install --no-install-recommends $packages >"$log" 2>&1 9>&- || {
	tail -n 30 "$log" >&2
	fail "apt-get could not install$packages (the whole output is in $log)"
}
packages=$(lacking)
[ -z "$packages" ] || fail "installed, but still lacking:$packages"
