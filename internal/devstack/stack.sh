#!/bin/sh
# The part of devstack that must outlive the program which started the servers:
# it waits until nobody uses them and stops them. A script, not the program
# itself, because a test binary is deleted while its servers still linger.
#
#   stack.sh watch DIR            wait until nobody uses the servers, then stop them
#   stack.sh stop DIR NAME...     end these servers in an orderly way
#   stack.sh kill DIR NAME...     end these servers at once
#
# A process is one of ours when its working directory is the server's private
# directory and its name is one of the server's; nothing else is ever ended.
set -u
verb=$1
dir=$2
shift 2

# traits NAME sets what tells the server's processes from all others, the
# signal that ends it in an orderly way, and the seconds it is given for that.
traits() {
	case $1 in
	postgres) home=$dir/postgres/data names=' postgres ' signal=INT grace=20 ;;
	rabbitmq) home=$dir/rabbitmq names=' beam.smp erl erlexec rabbitmq-server erl_child_setup inet_gethost memsup cpu_sup sh df ' signal=TERM grace=20 ;;
	epmd) home=$dir/epmd names=' epmd ' signal=TERM grace=2 ;;
	esac
}

# ours PID succeeds when the process lives and belongs to the server of traits,
# also when someone removed its directory from under it.
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

# signal_all SIGNAL PID... ignores those which ended meanwhile.
signal_all() {
	sig=$1
	shift
	for pid; do
		kill -s "$sig" "$pid" 2>/dev/null
	done
}

# await_end TENTHS waits for all processes of the server of traits.
await_end() {
	left=$1
	while [ -n "$(members)" ]; do
		[ "$left" -gt 0 ] || return 1
		left=$((left - 1))
		sleep 0.1 3>&- 4>&- 5>&-
	done
}

# halt NAME asks the server to end, and makes it end when it does not.
halt() {
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

# hurry takes out the part of RabbitMQ's management that waits, when the server
# ends, five seconds for the process which ends it. It may fail: only time is
# lost then.
hurry() {
	port=$(sed -n 's/.*"epmd_port": *\([0-9]*\).*/\1/p' "$dir/state.json")
	HOME=$dir/rabbitmq ERL_EPMD_PORT=$port timeout 3 erl_call -sname quadrille@localhost \
		-a 'gen_event delete_handler [rabbit_event,rabbit_mgmt_db_handler,[]]' >/dev/null 2>&1 </dev/null
}

# finish NAME ends the server at once. Repeated, for a server may be forking.
finish() {
	traits "$1"
	rounds=50
	while [ "$rounds" -gt 0 ]; do
		signal_all KILL $(members)
		await_end 2 && break
		rounds=$((rounds - 1))
	done
	rm -f "$dir/$1.pid"
}

# halt_each NAME... ends the servers side by side, for each takes its time.
# epmd comes last: RabbitMQ takes its name off there when it ends.
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

# watch holds no lock while it waits: descriptor 3 (watcher.lock, handed over
# by the program) says that a watcher is there, 4 is users.lock, on which every
# using process holds a shared lock, 5 is start.lock, under which servers are
# started and stopped. It leaves under the latter, so that whoever starts
# servers knows for certain whether there is a watcher.
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
			[ ! -e "$dir/temporary" ] || rm -rf "$dir"
			exec 3>&-
			exit 0
		fi
		flock -u 5
	done
}

# abandoned is for when someone removed the directory: nothing can join the
# servers any more. When there is a new one, its watcher looks after it.
abandoned() {
	if [ ! -e "$dir" ]; then
		halt_each rabbitmq epmd postgres
	fi
	exit 0
}

# linger_out SECONDS succeeds when nobody came during all these seconds.
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
esac
