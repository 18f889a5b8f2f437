#!/usr/bin/env bash
# A replay of dead letters goes on by itself when its broker is killed and started again, and ends with a report when it stays away.
# Usage: replay.sh MAESTRO BROKERS
set -euo pipefail
longest=120
. "$(dirname "$0")/with_kafka.sh"
await_copies() { # COUNT: until there are so many more than now, of a broker that may be away
  local want=$(($(kept orders) + $1)) deadline=$((SECONDS + 120)) now
  while now=$(kept orders); [ "${now:-0}" -lt "$want" ]; do
    [ "$SECONDS" -lt "$deadline" ] || fail "only ${now:-none} of $want copies came"
    kill -0 "$running" 2>/dev/null || fail "the replay ended before there were $want copies"
  done
}

count=3000
letters=orders.billing.dlq
maestro topics create orders --partitions 3 >/dev/null
maestro topics create "$letters" --partitions 3 >/dev/null
leave() { sed 's/.*/{"n":&,"key":"k&"}/' | maestro publish "$letters" --jsonl --key-field key --header dlq-topic=orders --header dlq-group=billing \
  --header dlq-attempts=1 --header dlq-reason=rejected >/dev/null; }
seq 1 $count | leave

"$program" --broker "$url" dlq replay "$letters" --rate 200 --json -o publish_timeout=120s >"$folder/said" 2>"$folder/errors" &
running=$!
for _ in 1 2 3; do
  await_copies 200
  broker kill
  broker revive
done
status=0
wait "$running" || status=$?
running=
[ "$status" -eq 0 ] || fail "the replay ended with $status"
grep -q "\"ended_early\":false,\"seen\":$count,\"replayed\":$count," "$folder/said" || fail "the replay said something else"
copies=$(kept orders)
maestro subscribe orders --max "$copies" --timeout 30 --format value | sort -u >"$folder/copied"
missing=$(seq 1 $count | sed 's/.*/{"n":&,"key":"k&"}/' | sort -u | comm -23 - "$folder/copied" | wc -l)
echo "$count dead letters, the broker killed 3 times: $missing missing, $((copies - count)) copied more than once"
[ "$missing" -eq 0 ] || fail "$missing are missing"
[ $((copies - count)) -le 3 ] || fail "more copied twice than the three that were under way"
[[ $(maestro dlq replay "$letters" --json 2>/dev/null) == *'"seen":0,'* ]] || fail "some were not settled"

# One that stays away.
seq 1 1000 | leave
"$program" --broker "$url" dlq replay "$letters" --rate 50 -o publish_timeout=4000 >"$folder/said" 2>"$folder/errors" &
running=$!
await_copies 20
broker kill
began=$SECONDS
status=0
wait "$running" || status=$?
running=
[ "$status" -ne 0 ] || fail "a replay without its broker ended well"
[ $((SECONDS - began)) -lt 40 ] || fail "it was waited for for $((SECONDS - began)) s"
grep -q 'replayed [0-9]* of [0-9]* dead letters before it ended early' "$folder/said" || fail "it did not say what was done"
grep -q '^maestro: ' "$folder/errors" || fail "it did not say why"
echo "a broker that stays away: ended with $status after $((SECONDS - began)) s: $(grep '^maestro: ' "$folder/errors")"
