#!/usr/bin/env bash
# What the command says and leaves behind when its broker hangs. Usage: frozen.sh MAESTRO BROKERS
set -euo pipefail
program=$1
brokers=$2
folder=$(mktemp -d)
running=
cleanup() {
  [ -z "$running" ] || kill -9 "$running" 2>/dev/null || true
  "$brokers" stop kafka --dir "$folder/run" 2>/dev/null || true
  rm -rf "$folder"
}
trap cleanup EXIT
url=$("$brokers" start kafka --dir "$folder/run" 2>/dev/null | tail -n 1)
maestro() { timeout 60 "$program" --broker "$url" "$@"; }
broker() { "$brokers" "$1" kafka --dir "$folder/run" 2>/dev/null; }
fail() { echo "$*" >&2; cat "$folder/said" "$folder/errors" >&2; exit 1; }
kept() { maestro topics describe "$1" --json 2>/dev/null | sed -n 's/.*"messages":\([0-9]*\).*/\1/p'; }
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
