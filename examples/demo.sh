#!/usr/bin/env bash
# A short session: what a stop and a restart look like. `make demo`.
#
# Each command is shown as it is run. Where the programs are: $PROGRAMS; where
# to listen: $PORT.
set -um # job control, so that a job can be interrupted as Ctrl-C does it
PATH=${PROGRAMS:-target/release}:$PATH
PORT=${PORT:-48879}
exec 2>&1
trap 'kill -KILL $(jobs -p) 2>/dev/null' EXIT

say() { printf '\n# %s\n' "$*"; }
# Shows a command and runs it.
run() {
    printf '$ %s\n' "$*"
    eval "$@"
}
# Waits for somebody to listen on the port.
listening() {
    for _ in $(seq 500); do
        ss -Hltn "sport = :$PORT" | grep -q . && return
        sleep 0.02
    done
    echo "nobody listens on port $PORT"
    exit 1
}

say 'A server that thinks for two seconds before each echo, so that we can watch.'
run "lastecho --delay 2s $PORT &"
server=$!
listening
sleep 0.3

say 'Ask it with netcat, and with telnet.'
run "echo hello | nc -N 127.0.0.1 $PORT"
printf '$ telnet 127.0.0.1 %s\n' "$PORT"
{
    echo 'hello from telnet'
    sleep 2.5
} | telnet 127.0.0.1 "$PORT"

say 'Somebody asks, and in mid-answer comes Ctrl-C.'
run "echo 'the last echo' | nc 127.0.0.1 $PORT &"
client=$!
sleep 0.5
run "kill -INT $server # what Ctrl-C sends"
wait "$client"
wait "$server"
run "echo \$?"

say 'Again, without the delay, while lastecho-ping counts every echo. Then a restart.'
run "lastecho $PORT &"
server=$!
listening
sleep 0.3
run "lastecho-ping --quiet --count 50 --interval 50ms $PORT &"
ping=$!
sleep 0.5
run "kill -USR2 $server"
wait "$ping"
run "echo \$?"
wait "$server"

say 'The successor serves on. It is a process of its own now; TERM ends it.'
successor=$(ss -Hltnp "sport = :$PORT" | sed -n 's/.*pid=\([0-9]*\),.*/\1/p')
run "kill $successor"
# Not `kill -0`: nobody may have buried it yet.
while readlink "/proc/$successor/exe" >/dev/null; do sleep 0.02; done
