#!/usr/bin/env bash
# What the command says and leaves behind when its broker hangs. Usage: frozen.sh MAESTRO BROKERS
set -euo pipefail
. "$(dirname "$0")/with_kafka.sh"
await_kept() { # TOPIC COUNT
  local deadline=$((SECONDS + 60))
  until [ "$(kept "$1")" = "$2" ]; do [ "$SECONDS" -lt "$deadline" ] || fail "$1 has no $2 messages"; done
}
ends() { # STATUS: of what runs; and how long it took
  local status=0 began=$SECONDS
  wait "$running" || status=$?
  running=
  took=$((SECONDS - began))
  [ "$status" -eq "$1" ] || fail "ended with $status, not $1"
}

# Nothing is published behind a hole, and the way on that is named leaves none.
maestro topics create lines --partitions 1 >/dev/null
mkfifo "$folder/pipe"
"$program" --broker "$url" publish lines -o publish_timeout=3s <"$folder/pipe" >"$folder/said" 2>"$folder/errors" &
running=$!
exec 3>"$folder/pipe"
seq 1 1000 >&3
await_kept lines 1000
broker freeze
seq 1001 3000 >&3
exec 3>&-
ends 1
broker thaw
grep -q 'messages, lines\? 1001[-: ]' "$folder/errors" || fail "it did not say which lines failed"
grep -q 'nothing behind line [12][0-9]* was tried' "$folder/errors" || fail "it did not say where it stopped"
from=$(sed -n 's/.*Go on with `tail -n +\([0-9]*\)`.*/\1/p' "$folder/errors")
[ "$from" = 1001 ] || fail "it did not say how to go on"
seq 1 3000 | tail -n "+$from" | maestro publish lines >/dev/null
maestro subscribe lines --max "$(kept lines)" --timeout 20 --format value | awk '!seen[$0]++' | cmp - <(seq 1 3000) || fail "lines are missing, or out of order"
echo "a hanging broker: it published no line behind 1000, and went on from $from: $(($(kept lines) - 3000)) twice"

# A reader that has not read everything does not take the silence for the end.
maestro topics create many --partitions 2 >/dev/null
seq 20000 | awk '{ printf "%3000s\n", $1 }' | maestro publish many >/dev/null
for group in '' '--group readers'; do
  rm "$folder/pipe" && mkfifo "$folder/pipe"
  # shellcheck disable=SC2086
  "$program" --broker "$url" subscribe many $group --timeout 2 --format value -o fetch_buffer_bytes=4194304 >"$folder/pipe" 2>"$folder/errors" &
  running=$!
  exec 3<"$folder/pipe"
  head -n 1 <&3 >/dev/null  # the pipe is full then, and holds up the reader
  broker freeze
  cat <&3 >"$folder/said"
  exec 3<&-
  ends 3
  broker thaw
  [ "$(wc -l <"$folder/said")" -lt 19999 ] || fail "it had read everything before"
  grep -q "nothing more came from 'many' after [0-9,]* messages, and the broker does not answer: .*; [0-9,]* are known to be left" "$folder/errors" \
    || fail "it did not say that there is more"
  echo "a reader '$group': $(wc -l <"$folder/said") of 20000 lines, and $(tail -n 1 "$folder/errors")"
done

# An interrupt is heard, and what is not settled then is told.
interrupted() { # STATUS TEXT
  kill -TERM "$running"
  ends "$1"
  [ "$took" -le 10 ] || fail "the end took $took s"
  grep -q "$2" "$folder/errors" || fail "it did not say '$2'"
  broker thaw
  echo "interrupted: ended with $1 after $took s"
}
rm "$folder/pipe" && mkfifo "$folder/pipe"
"$program" --broker "$url" publish lines --json <"$folder/pipe" >"$folder/said" 2>"$folder/errors" &
running=$!
exec 3>"$folder/pipe"
before=$(kept lines)
echo 1 >&3
await_kept lines $((before + 1))
broker freeze
has_read() { sed -n 's/^rchar: //p' "/proc/$running/io"; }
read_before=$(has_read)
seq 2 500 >&3
until [ "$(has_read)" -ge $((read_before + $(seq 2 500 | wc -c))) ]; do kill -0 "$running" || fail "it ended"; done
interrupted 1 'nothing behind line [0-9]* was tried'
exec 3>&-

echo once | maestro publish single >/dev/null
: >"$folder/said"  # whoever waits for a line in it must not see an old one
"$program" --broker "$url" subscribe single --group late >"$folder/said" 2>"$folder/errors" &
running=$!
until [ -s "$folder/said" ]; do kill -0 "$running" || fail "it ended"; done
broker freeze
interrupted 3 'did not hear within 3 s of what was printed last'
