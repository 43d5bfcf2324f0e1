#!/bin/sh
# Creates the secrets that compose.yaml passes to the containers: a random password for each service and
# for the administrators of both servers, a token for HTTP, and the files that are derived from them.
#
#   deploy/secrets.sh [FOLDER]     default: the folder secrets next to compose.yaml
#
# It needs only a POSIX shell with the usual tools. Run it again after a change, such as a new service in
# the list below: it keeps existing passwords and tokens and writes all other files again.
set -eu
umask 077

services='orders payments inventory shipping'
vhost=quadrille

dir=${1:-$(dirname "$0")/../secrets}

fail() {
	echo "secrets.sh: $*" >&2
	exit 1
}

# random prints 192 random bits in characters that need no quoting in URLs, JSON, SQL or a shell.
random() {
	value=$(od -An -v -tx1 -N24 /dev/urandom | tr -d ' \n')
	[ ${#value} -eq 48 ] || fail 'cannot read random numbers from /dev/urandom'
	printf %s "$value"
}

# keep FILE COMMAND... replaces a file atomically with the output of a command. If the command fails, the
# script fails. Containers read the file under other user ids and Compose cannot change its owner, so
# every user may read it; its folder is closed to other users.
#
# A command assigns the output of another one to a variable first. Anywhere else the shell ignores the
# failure of a substitution, and the secret would be empty.
keep() {
	file=$dir/$1
	shift
	"$@" >"$file.new"
	chmod 644 "$file.new"
	mv "$file.new" "$file"
}

# password prints the password of an account.
password() {
	[ -s "$dir/passwords/$1" ] || fail "$dir/passwords/$1 is missing or empty"
	cat "$dir/passwords/$1"
}

sha256() {
	if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi | cut -c1-64
}

# unhex prints the bytes of its argument, which is in hexadecimal digits.
unhex() {
	for byte in $(printf %s "$1" | fold -w2); do
		# shellcheck disable=SC2059 # the format is the byte
		printf "\\$(printf %03o "0x$byte")"
	done
}

# hash prints the form in which RabbitMQ stores a password: salt and SHA-256 of salt and password, Base64.
hash() {
	salt=$(random)
	salt=${salt%"${salt#????????}"} # four bytes
	digest=$({ unhex "$salt" && printf %s "$1"; } | sha256)
	hashed=$(unhex "$salt$digest" | base64 | tr -d '\n')
	[ ${#hashed} -eq 48 ] || fail 'cannot hash a password: install fold, base64, and sha256sum or shasum'
	printf %s "$hashed"
}

# definitions prints the file that RabbitMQ loads at each start: the virtual host, the accounts and their
# permissions. A service writes to its own exchange, reads its own queues and configures nothing; the
# operator declares the topology.
definitions() {
	printf '{\n  "vhosts": [{"name": "%s"}],\n  "users": [\n' "$vhost"
	for account in $services operator; do
		secret=$(password "$account")
		hashed=$(hash "$secret")
		tags='' comma=,
		case $account in operator) tags='"administrator"' comma='' ;; esac
		printf '    {"name": "%s", "password_hash": "%s", "hashing_algorithm": "rabbit_password_hashing_sha256", "tags": [%s], "limits": {}}%s\n' \
			"$account" "$hashed" "$tags" "$comma"
	done
	printf '  ],\n  "permissions": [\n'
	for account in $services operator; do
		configure='^$' write="^$account\\\\.events\$" read="^($account\\\\.(in|dead)|topology\\\\..+)\$" comma=,
		case $account in operator) configure='.*' write='.*' read='.*' comma='' ;; esac
		printf '    {"user": "%s", "vhost": "%s", "configure": "%s", "write": "%s", "read": "%s"}%s\n' \
			"$account" "$vhost" "$configure" "$write" "$read" "$comma"
	done
	printf '  ]\n}\n'
}

# databases prints SQL for psql, which may run any number of times: a role and a database for each
# service, to which no other role may connect. A role may stream the log of the server (quadrille relay
# use stream) only if STREAM is set.
databases() {
	echo 'REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC;'
	for service in $services; do
		secret=$(password "$service")
		cat <<-SQL
			SELECT 'CREATE ROLE "$service" LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '$service') \\gexec
			ALTER ROLE "$service"${STREAM:+ REPLICATION} PASSWORD '$secret';
			SELECT 'CREATE DATABASE "$service" OWNER "$service"' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '$service') \\gexec
			REVOKE ALL ON DATABASE "$service" FROM PUBLIC;
		SQL
	done
}

# operator prints the settings of the command line inside the network of the containers.
operator() {
	secret=$(password operator)
	printf "export QUADRILLE_AMQP_URL='amqp://operator:%s@rabbitmq:5672/%s'\n" "$secret" "$vhost"
	printf "export QUADRILLE_TOKEN='%s'\n" "$token"
	for service in $services; do
		upper=$(printf %s "$service" | tr a-z- A-Z_)
		printf "export QUADRILLE_%s_URL='http://%s:8080'\n" "$upper" "$service"
	done
}

mkdir -p "$dir/passwords"
chmod 700 "$dir"

for account in $services operator postgres; do
	[ -s "$dir/passwords/$account" ] || keep "passwords/$account" random
done

if [ ! -s "$dir/tokens" ]; then
	token=$(random)
	keep tokens printf '# A line "client token" for each client of the HTTP API, "client token admin" for an admin.\noperator %s admin\n' "$token"
fi
token=$(awk '$1 == "operator" { print $2; exit }' "$dir/tokens")
[ -n "$token" ] || fail "$dir/tokens has no line for the client \"operator\", whose token the command line needs"

for service in $services; do
	secret=$(password "$service")
	# Traffic between the containers of one machine is not encrypted. Across a network use
	# sslmode=verify-full and amqps.
	keep "${service}_database_url" printf 'postgres://%s:%s@postgres:5432/%s?sslmode=disable\n' "$service" "$secret" "$service"
	keep "${service}_amqp_url" printf 'amqp://%s:%s@rabbitmq:5672/%s\n' "$service" "$secret" "$vhost"
done
keep definitions.json definitions
keep databases.sql databases
keep operator.env operator
echo "the secrets are in $dir"
