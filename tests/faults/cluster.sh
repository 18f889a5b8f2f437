#!/usr/bin/env bash
# With two of three brokers dead `maestro subscribe --timeout` ends in time and says why nothing came. Usage: cluster.sh MAESTRO BROKERS
set -euo pipefail
variant=cluster
. "$(dirname "$0")/with_kafka.sh"
seconds=5
at_most=$((seconds + 12))  # to open: 5 s more; librdkafka, to end while its brokers are away: 5 s; and the machine may be busy
listen() { # STATUS ARGUMENT…: and how long it took
  local wanted=$1 began=$SECONDS status=0
  shift
  maestro subscribe "$@" --timeout $seconds >"$folder/said" 2>"$folder/errors" || status=$?
  took=$((SECONDS - began))
  echo "subscribe $*: $status after $took s"
  [ "$status" -eq "$wanted" ] || fail "subscribe $*: ended with $status, not $wanted"
  [ "$took" -le $at_most ] || fail "subscribe $*: took $took s"
}
is_told_why() { grep -q "no message came from '$1', and the broker, or one of its cluster, cannot be reached: .*Connection refused" "$folder/errors" || fail "it did not say why"; }

maestro topics create things --partitions 6 >/dev/null
seq 1 600 | sed 's/.*/{"n":&}/' | maestro publish things --jsonl --key-field n >/dev/null
maestro topics create nothing --partitions 6 >/dev/null
listen 4 nothing
listen 4 nothing --group first
[ "$(cat "$folder/errors")" = "maestro: no message came from 'nothing'" ] || fail "all brokers are there, and it says otherwise"
for node in 2 3; do broker kill --node $node; done
listen 0 things  # the partitions that have a leader
lines=$(wc -l <"$folder/said")
[ "$lines" -gt 0 ] && [ "$lines" -lt 600 ] || fail "$lines lines"
# Of some of them the coordinator is dead.
for group in a b c d; do
  listen 3 nothing --group $group
  is_told_why nothing
done
