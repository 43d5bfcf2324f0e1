#!/bin/sh
# This part of package localrun outlives the program that has started the servers. It waits until they have
# no user and then stops them. It is a script, because a test binary is deleted while its servers
# still linger.
#
#   servers.sh watch DIR            wait until the servers have no user, then stop them
#   servers.sh stop DIR NAME...     stop these servers in an orderly way
#   servers.sh kill DIR NAME...     kill these servers
#   servers.sh drop DIR NAME...     remove the containers of these servers, with their data
#
# If LOCALRUN_RUNTIME is set, the servers are containers of that runtime, and not processes.
#
# A process belongs to a server if its working directory is the private directory of the server and
# its name is one of those of the server. The script ends no other process.
set -u
runtime=${LOCALRUN_RUNTIME:-}
verb=$1
dir=$2
shift 2

# traits NAME sets the working directory and the names of the server's processes, the signal that
# stops the server in an orderly way, and how many seconds that may take.
traits() {
	case $1 in
	postgres) home=$dir/postgres/data names=' postgres ' signal=INT grace=20 ;;
	rabbitmq) home=$dir/rabbitmq names=' beam.smp erl erlexec rabbitmq-server erl_child_setup inet_gethost memsup cpu_sup sh df ' signal=TERM grace=20 ;;
	epmd) home=$dir/epmd names=' epmd ' signal=TERM grace=2 ;;
	esac
}

# ours PID succeeds if the process is alive and belongs to the server of traits. It also succeeds if
# the directory of the server was removed.
ours() {
	{ read -r comm <"/proc/$1/comm"; } 2>/dev/null || return 1
	case $names in *" $comm "*) ;; *) return 1 ;; esac
	[ "/proc/$1/cwd" -ef "$home" ] && return 0
	[ "$(readlink "/proc/$1/cwd")" = "$home (deleted)" ]
}

# members prints the processes of the server of traits.
members() {
	for proc in /proc/[0-9]*; do
		ours "${proc#/proc/}" && printf '%s ' "${proc#/proc/}"
	done
}

# signal_all SIGNAL PID... sends a signal and ignores processes that have ended meanwhile.
signal_all() {
	sig=$1
	shift
	for pid; do
		kill -s "$sig" "$pid" 2>/dev/null
	done
}

# await_end TENTHS waits until all processes of the server of traits have ended.
await_end() {
	left=$1
	while [ -n "$(members)" ]; do
		[ "$left" -gt 0 ] || return 1
		left=$((left - 1))
		sleep 0.1 3>&- 4>&- 5>&-
	done
}

# contain VERB NAME runs a command of the container runtime for the container of a server. An error
# means that there is none, or that it has ended.
contain() {
	name=$2
	[ "$name" != epmd ] || return 0 # it runs in the container of RabbitMQ
	container=$(basename "$dir")-$name
	case $1 in
	rm) "$runtime" rm --force --volumes "$container" ;;
	stop) "$runtime" stop -t 20 "$container" ;;
	kill) "$runtime" kill "$container" ;;
	esac >/dev/null 2>&1 3>&- 4>&- 5>&-
	rm -f "$dir/$name.pid"
}

# drop NAME... removes the containers of the servers.
drop() {
	[ -n "$runtime" ] || return 0
	for name; do contain rm "$name"; done
}

# halt NAME stops the server, and kills it if it does not stop in time.
halt() {
	if [ -n "$runtime" ]; then
		contain stop "$1"
		return
	fi
	traits "$1"
	main=
	{ read -r main _ <"$dir/$1.pid"; } 2>/dev/null
	if [ -n "$main" ] && ours "$main"; then
		[ "$1" != rabbitmq ] || hurry
		signal_all $signal "$main"
	else
		signal_all $signal $(members)
	fi
	await_end $((grace * 10)) || finish "$1"
	rm -f "$dir/$1.pid"
}

# hurry removes an event handler of RabbitMQ's management, which would delay the end of the server by
# five seconds. If hurry fails, the stop only takes longer.
hurry() {
	port=$(sed -n 's/.*"epmd_port": *\([0-9]*\).*/\1/p' "$dir/state.json")
	HOME=$dir/rabbitmq ERL_EPMD_PORT=$port timeout 3 erl_call -sname quadrille@localhost \
		-a 'gen_event delete_handler [rabbit_event,rabbit_mgmt_db_handler,[]]' >/dev/null 2>&1 </dev/null
}

# finish NAME kills the server. It repeats the signal, since the server may be forking.
finish() {
	if [ -n "$runtime" ]; then
		contain kill "$1"
		return
	fi
	traits "$1"
	rounds=50
	while [ "$rounds" -gt 0 ]; do
		signal_all KILL $(members)
		await_end 2 && break
		rounds=$((rounds - 1))
	done
	rm -f "$dir/$1.pid"
}

# halt_each NAME... stops the servers at the same time, since each stop takes long. It stops epmd
# last, because RabbitMQ unregisters its name there when it ends.
halt_each() {
	last=
	for name; do
		case $name in
		epmd) last=epmd ;;
		*) halt "$name" & ;;
		esac
	done
	wait
	[ -z "$last" ] || halt epmd
}

# watch uses three locks. Descriptor 3 is watcher.lock, which the program has passed on; it shows that
# a watcher runs. 4 is users.lock, on which every user holds a shared lock. 5 is start.lock, which is
# held to start or stop servers. watch holds only the first while it waits. It exits under start.lock,
# so that a program that starts servers knows for certain whether a watcher runs.
watch() {
	exec 4<>"$dir/users.lock" 5<>"$dir/start.lock"
	while :; do
		flock -x 4 3>&- 5>&- || exit 1
		flock -u 4
		{ true >"$dir/idle" && read -r linger <"$dir/linger"; } 2>/dev/null || abandoned
		[ "$linger" = never ] || linger_out "$linger" || continue
		flock -x 5 3>&- || exit 1
		[ "$dir/users.lock" -ef "/proc/$$/fd/4" ] || abandoned
		read -r linger <"$dir/linger"
		if [ "$linger" = never ]; then
			exec 3>&-
			exit 0
		fi
		if flock -n -x 4 3>&-; then
			halt_each rabbitmq epmd postgres 3>&- 4>&- 5>&-
			if [ -e "$dir/temporary" ]; then
				drop rabbitmq postgres
				rm -rf "$dir"
			fi
			exec 3>&-
			exit 0
		fi
		flock -u 5
	done
}

# abandoned handles a directory that was removed: no process can join its servers any more. If a new
# directory exists in its place, its own watcher stops the servers.
abandoned() {
	if [ ! -e "$dir" ]; then
		halt_each rabbitmq epmd postgres
		drop rabbitmq postgres
	fi
	exit 0
}

# linger_out SECONDS succeeds if no user came during all these seconds.
linger_out() {
	step=1
	[ "$1" -le 30 ] || step=5
	waited=0
	while [ "$waited" -lt "$1" ]; do
		sleep $step 3>&- 4>&- 5>&-
		waited=$((waited + step))
		flock -n -x 4 3>&- 5>&- || return 1
		flock -u 4
		[ ! "$dir/users.lock" -nt "$dir/idle" ] || return 1
	done
	return 0
}

case $verb in
watch) watch ;;
stop) halt_each "$@" ;;
kill) for name; do finish "$name"; done ;;
drop) drop "$@" ;;
esac
