#!/usr/bin/env bash
# Walks through the ladder: what a step changes, the step with a client beside
# it, and what happens. Clients are those that the steps' headings name.
#
#   make ladder [STEPS='5 6']
#
# Without a terminal it goes on by itself, and takes a good minute.

set -u
cd "$(dirname "$0")/.." || exit 1
programs=${PROGRAMS:-${CARGO_TARGET_DIR:-target}/debug/examples}
scratch=$(mktemp -d) || exit 1
server='' client=''
nc='nc 127.0.0.1 48879'
never_reads="bash -c 'seq 2000000 >/dev/tcp/127.0.0.1/48879'"
trap 'leave; end_by_force; rm -rf "$scratch"' EXIT

missing=''
for tool in nc diff; do
	command -v "$tool" >/dev/null || missing="$missing $tool"
done
if [ -n "$missing" ]; then
	echo "missing:$missing; on Debian or Ubuntu: sudo apt-get install netcat-openbsd diffutils" >&2
	exit 1
fi

say() { printf '%2ds  %s\n' "$SECONDS" "$*"; }

# Puts the time and a name before every line.
tell() {
	while IFS= read -r line; do say "$1 | $line"; done
}

enter() {
	if [ -t 0 ]; then read -r -p "Enter: $1 "; fi
}

# Waits for the word in what the server says, 10 s at most.
await() {
	for _ in $(seq 100); do
		if grep -q "$1" "$scratch/said"; then return; fi
		sleep 0.1
	done
	echo "the server never said: $1" >&2
	exit 1
}

# A job has a process group of its own, so that it can be ended as a whole, and
# Ctrl-C (SIGINT) is not ignored in it.
start() {
	SECONDS=0
	: >"$scratch/said"
	set -m
	"$programs/$step" 127.0.0.1:0 > >(tee -a "$scratch/said" | tell server) 2>&1 &
	server=$!
	set +m
	await 'listening on'
	port=$(sed -n 's/^listening on .*://p' "$scratch/said")
}

# Runs a client of this command line, at the server's port.
run_client() {
	local command=${1/48879/$port}
	say "you    | $command"
	set -m
	(eval "$command") > >(tell client) 2>&1 &
	client=$!
	set +m
}

# Runs nc with these lines as if somebody typed them and sat there.
type_into_nc() {
	local typed="echo $1; "
	for line in "${@:2}"; do typed+="sleep 0.3; echo $line; "; done
	run_client "(${typed}sleep 60) | $nc"
}

# The client is gone, whatever it was doing.
leave() {
	if [ -n "$client" ]; then
		kill -KILL -- "-$client" && wait "$client"
		client=''
	fi 2>/dev/null
}

# A client that reads slowly ends after the server; 10 s at most.
client_ends() {
	for _ in $(seq 100); do
		if ! kill -0 "$client" 2>/dev/null; then break; fi
		sleep 0.1
	done
	sleep 0.2 # for its last words to pass
	leave
}

ctrl_c() {
	say 'you    | Ctrl-C'
	kill -INT "$server"
}

# Whether the server ends within so many seconds; says which.
ends_within() {
	for _ in $(seq "$1"0); do
		if ! kill -0 "$server" 2>/dev/null; then
			wait "$server" 2>/dev/null
			local status=$?
			server=''
			sleep 0.2 # for its last words to pass
			say "server | ended with status $status"
			return 0
		fi
		sleep 0.1
	done
	say "server | still there, $1 s after that"
	return 1
}

end_by_force() {
	if [ -n "$server" ]; then
		kill -KILL "$server" && wait "$server"
		server=''
	fi 2>/dev/null
}

# The client that the heading tells you to run beside the step.
heading_client() {
	sed -n 's/^\/\/!.*`\([^`]*127\.0\.0\.1.48879[^`]*\)`.*/\1/p' "examples/$step.rs"
}

# Ctrl-C while the server works on the first of these lines.
stop_at_work() {
	start
	type_into_nc "$@"
	await working
	sleep 1
	ctrl_c
}

# Ctrl-C while this client is owed more than it takes.
stop_in_flood() {
	start
	run_client "$1"
	sleep 4
	ctrl_c
}

run() {
	case $step in
	01* | 03*) stop_at_work hello; ends_within 2 ;;
	02*) stop_at_work hello; ends_within 3 || { leave; type_into_nc bye; ends_within 5; } ;;
	04*) stop_at_work hello; ends_within 5 || { say 'client | leaves'; leave; ends_within 5; } ;;
	05*) stop_at_work hello; ends_within 5; leave; stop_in_flood "$(heading_client)"; ends_within 10; client_ends ;;
	06*) stop_in_flood "$(heading_client)"; ends_within 10; client_ends
		stop_in_flood "$never_reads"; ends_within 8 || { say 'client | leaves'; leave; ends_within 5; } ;;
	07*) stop_in_flood "$(heading_client)"; ends_within 10; leave; stop_at_work hello again; ends_within 5 ;;
	08*) stop_at_work hello again; ends_within 5; leave; stop_in_flood "$never_reads"; ends_within 10 ;;
	esac
	leave
	end_by_force
}

walk() {
	printf '\n'
	sed -n 's/^\/\/! \{0,1\}//p' "$1"
	printf '\n'
	if [ -n "$2" ]; then
		enter 'what it changes'
		diff -dwU 1 <(grep -v '^//!' "$2") <(grep -v '^//!' "$1") | tail -n +3
	else
		enter 'the program'
		grep -v '^//!' "$1"
	fi
	printf '\n'
	enter 'run it'
	run
	enter 'go on'
}

printf 'Eight steps to a graceful stop. With each runs a client. The lines begin with the\n'
printf 'seconds passed and with who speaks: the server, the client, or you, who act on them.\n'
before=''
for file in examples/0*.rs; do
	step=$(basename "$file" .rs)
	case " ${*:-all} " in
	*" all "* | *" ${step:1:1} "*) walk "$file" "$before" ;;
	esac
	before=$file
done
