# What the plugin runs on the host: sh -c SCRIPT teal-process ACTION [ARGUMENT...]
#
# A container is a folder below $root; the name is its id. In it:
#   note, labels  what Create was told, a line of JSON each
#   env           sh: exports the environment; it may hold secrets
#   command       sh: sets "$@" to the command
#   mounts        a line for each: target, tab, source
#   folder        where the process works
#   limits        of memory and CPU, for systemd; a line each, both may be empty
#   keeper        systemd or setsid: what holds the supervisor
#   *.service     the unit that does, where that is systemd
#   restart       always or no
#   supervisor    "PID BIRTH" of the loop that keeps the process alive
#   pid           "PID BIRTH" of the process, while it runs
#   stopped       is there when it shall not run
#   exit          the code of the last process, when it will not be started again
#   log           what it wrote; it grows, and may be truncated at any time
# Exit codes: 64 invalid, 65 not found, 66 exists, 67 conflict, 68 unsupported.
umask 077
root=${XDG_STATE_HOME:-$HOME/.local/state}/teal-process

fail() { code=$1; shift; echo "$*" >&2; exit "$code"; }

enter() { cd "$root/$1" 2>/dev/null || fail 65 "there is no container $1"; }

birth() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

# alive FILE: whether the process in it lives; $pid is its id. A process that
# got the same id later was born at another time.
alive() {
	pid=0 born=
	[ -e "$1" ] && read -r pid born <"$1" && [ "$(birth "$pid")" = "$born" ] && return
	pid=0
	return 1
}

remember() { echo "$2 $(birth "$2")" >"$1.new" && mv "$1.new" "$1"; }

# describe prints STATUS PID CODE CREATED NOTE of the container that is entered.
describe() {
	status=exited code=255
	[ -e exit ] && read -r code <exit
	if alive pid; then status=running
	elif alive supervisor; then pid=0 status=other
	fi
	facts=$(cat created note 2>/dev/null) && echo "$status $pid $code $facts" | tr '\n' ' ' && echo
}

# place ARGUMENT: $placed is what the path of a mount is on the host.
place() {
	placed=$1
	while IFS='	' read -r target source; do
		case $1 in
		"$target") placed=$source ;;
		"$target"/*) placed=$source${1#"$target"} ;;
		esac
	done <mounts
}

# run COMMAND: becomes it, in its folder and with its environment.
run() {
	n=$#
	while [ "$n" -gt 0 ]; do
		place "$1"
		shift
		set -- "$@" "$placed"
		n=$((n - 1))
	done
	umask 022
	home=$PWD
	cd "$(cat folder)" || exit 126
	. "$home/env"
	exec "$@"
}

# supervise is the loop. The process leads a group of its own, so that what it
# leaves behind can be ended.
supervise() {
	. ./command
	[ ! -e stopped ] || return 0
	rm -f exit pid
	remember supervisor $$
	while :; do
		(run setsid "$@") >>log 2>&1 </dev/null &
		leader=$!
		remember pid "$leader"
		wait "$leader"
		code=$?
		kill -KILL "-$leader" 2>/dev/null
		rm -f pid
		wanted && sleep 1 && wanted && continue
		echo "$code" >exit
		return
	done
}

unit() { echo "teal-process-${PWD##*/}.service"; }

# at_boot has the host start the process with it, by the restart policy.
at_boot() {
	[ "$(cat keeper)" = systemd ] || return 0
	case $(cat restart) in
	always) systemctl --quiet enable "$PWD/$(unit)" ;;
	*) ! systemctl --quiet is-enabled "$(unit)" 2>/dev/null || forget ;;
	esac
}

forget() { [ "$(cat keeper)" != systemd ] || systemctl --quiet disable "$(unit)" 2>/dev/null || :; }

wanted() { [ ! -e stopped ] && [ "$(cat restart)" = always ]; }

# launch starts the loop apart from this connection and waits until the
# process runs, or has run.
launch() {
	(. ./command && run sh -c 'command -v -- "$1" >/dev/null' sh "$1") || fail 64 "the command is no program: $(cat command)"
	if [ -s port ] && grep -Eq "^ *[0-9]+: [0-9A-F]+:$(printf %04X "$(cat port)") [0-9A-F]+:[0-9A-F]+ 0A " /proc/net/tcp /proc/net/tcp6; then
		fail 67 "port $(cat port) is taken"
	fi
	rm -f stopped exit pid supervisor
	{ read -r memory; read -r cpus; } <limits
	if [ "$(cat keeper)" = systemd ]; then
		printf '%s\n' "[Service]" "Environment=\"HOME=$HOME\"" "ExecStart=/bin/sh \"$PWD/process.sh\" supervise \"$PWD\"" "Restart=on-failure" \
			${memory:+"MemoryMax=$memory"} ${cpus:+"CPUQuota=$cpus%"} "[Install]" "WantedBy=multi-user.target" >"$(unit)"
		at_boot && systemctl --quiet link "$PWD/$(unit)" && systemctl start "$(unit)" || fail 69 "systemd does not start it"
	else
		[ -z "$memory$cpus" ] || fail 68 "limits of memory and CPU need systemd and root"
		setsid sh ./process.sh supervise "$PWD" >/dev/null 2>&1 </dev/null &
	fi
	n=100
	while ! [ -e pid ] && ! [ -e exit ]; do
		[ $n -gt 0 ] || fail 69 "the supervisor does not start"
		n=$((n - 1))
		sleep 0.05
	done
}

# halt TENTHS: asks the process to end, and its group by force after so many
# tenths of a second. It returns when nothing runs.
halt() {
	: >stopped
	alive pid && kill -TERM "$pid" 2>/dev/null
	n=$1
	while alive pid || alive supervisor; do
		[ "$n" -le 0 ] && alive pid && kill -KILL "-$pid" 2>/dev/null
		n=$((n - 1))
		sleep 0.1
	done
}

# create NAME [FILE CONTENT]... <env
create() {
	mkdir -p "$root/.volumes" || exit
	if [ -d "$root/$1" ]; then
		[ "$(cat "$root/$1/labels")" = "$3" ] || fail 66 "there is another container of that name"
		enter "$1"
		alive pid && return
	else
		name=$1 new=$root/.new-$$
		mkdir "$new" && cd "$new" || exit
		trap 'rm -rf -- "$new"' EXIT
		shift
		cat >env && date +%s%N >created && echo "$root/$name" >folder || exit
		while [ $# -gt 0 ]; do
			echo "$2" >"$1" && shift 2 || exit
		done
		while IFS='	' read -r target source; do
			case $source in
			'') continue ;;
			/*) [ -e "$source" ] || fail 64 "there is no $source to mount" && echo "$source" >folder ;;
			*) source=$root/.volumes/$source && mkdir -p "$source" || exit ;;
			esac
			echo "$target	$source"
		done <mounts >placed || exit
		mv placed mounts && mv "$new" "$root/$name" && trap - EXIT && enter "$name" || exit
	fi
	trap '[ $? = 0 ] || { forget; rm -rf -- "$PWD"; }' EXIT
	launch
}

action=$1
shift
case $action in
probe)
	command -v setsid >/dev/null || fail 68 "setsid is missing: install util-linux"
	if [ "$(id -u)" = 0 ] && [ -d /run/systemd/system ] && command -v systemctl >/dev/null; then echo systemd; else echo setsid; fi
	;;
create) create "$@" && describe ;;
supervise) cd "$1" && supervise ;;
list) cd "$root" 2>/dev/null && for name in *; do [ ! -d "$name" ] || (enter "$name" && describe); done; exit 0 ;;
exec) # NAME COMMAND...
	(enter "$1" && alive pid) 2>/dev/null || fail 125 "the container $1 does not run"
	enter "$1"
	shift
	run "$@"
	;;
pid) (enter "$1" && alive pid && echo "$pid") 2>/dev/null || echo 0 ;;
stop) [ ! -d "$root/$1" ] || (enter "$1" && halt "$2") ;;
remove) [ ! -d "$root/$1" ] || (enter "$1" && halt 0 && forget && mv "$PWD" "$root/.gone-$1" && rm -rf -- "$root/.gone-$1") ;;
restart) enter "$1" && halt "$2" && launch ;;
policy) enter "$1" && echo "$2" >restart && at_boot ;;
logs) enter "$1" && tail -n "$2" log ;;
port) enter "$1" && cat port ;;
esac
