#!/usr/bin/env bash
# What `scripts/brokers` says of a folder that it cannot use, and that an interrupt leaves nothing behind. Usage: brokers.sh BROKERS
set -euo pipefail
brokers=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
fail() { echo "$*" >&2; cat "$folder/said" >&2; exit 1; }

touch "$folder/file"
for bad in "$folder/file" "$folder/file/below" /proc/none; do
  status=0
  "$brokers" start kafka --dir "$bad" >"$folder/said" 2>&1 || status=$?
  [ $status -eq 2 ] || fail "--dir $bad: ended with $status, not 2"
  [ "$(wc -l <"$folder/said")" -eq 1 ] && grep -q "^scripts/brokers: --dir $bad: .*; allowed is a folder" "$folder/said" || fail "--dir $bad: said"
done

# What runs in the background has the interrupt ignored, unless told otherwise.
env --default-signal=INT "$brokers" start kafka --dir "$folder/run" >"$folder/said" 2>&1 &
starting=$!
for ((i = 0; i < 1000; i++)); do
  ! grep -q '"pid"' "$folder/run/kafka-single.json" 2>/dev/null || break
  kill -0 $starting 2>/dev/null || fail "it ended before it was interrupted"
  sleep 0.05
done
data=$(sed -n 's/.*"data": "\(.*\)".*/\1/p' "$folder/run/kafka-single.json")
kill -INT $starting
status=0
wait $starting || status=$?
[ $status -eq 130 ] || fail "an interrupted start ended with $status, not 130"
if grep -q Traceback "$folder/said"; then fail "an interrupted start said"; fi
grep -q '^scripts/brokers: interrupted$' "$folder/said" || fail "an interrupted start said"
[ -n "$data" ] && [ ! -e "$data" ] || fail "its data is left in '$data'"
if pgrep -f "$data" >/dev/null; then fail "a process of it runs still"; fi
echo "scripts/brokers refuses what it cannot use, and leaves nothing behind"
