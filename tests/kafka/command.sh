#!/usr/bin/env bash
# The command on a real Kafka: lines from a pipe, dead letters that are looked at and replayed. Usage: command.sh MAESTRO BROKERS
set -euo pipefail
url=$("$2" start kafka 2>/dev/null | tail -n 1)
maestro() { "$program" --broker "$url" "$@"; }
program=$1
topic=command.$$.$RANDOM
scratch=$(mktemp)
trap 'rm -f "$scratch"' EXIT

both() { "$@" 2>&1; }
expect() { # TEXT COMMAND…
  local text=$1 said
  shift
  said=$("$@") || true  # nothing to do is a status of its own
  if [[ $said != *"$text"* ]]; then
    echo "$*: said \"$said\", not \"$text\"" >&2
    exit 1
  fi
}

# A pipe, in batches: 50,000 awaited round trips would take minutes.
seq 1 50000 | timeout 30 "$program" --broker "$url" publish "$topic.lines" | grep -q 'published 50,000'
expect 'lines: 50,000 messages kept' maestro topics describe "$topic.lines"
expect ' ' maestro subscribe "$topic.lines" --max 10
[ "$(maestro subscribe "$topic.lines" --max 10 --format value | wc -l)" -eq 10 ]
expect '"partition":' maestro subscribe "$topic.lines" --max 1 --format json

# A member whose output nobody reads any more leaves its group, and nobody waits until it is missed.
(maestro subscribe "$topic.lines" --group pipe --format value || true) | head -n 1 >/dev/null
began=$SECONDS
[ "$(maestro subscribe "$topic.lines" --group pipe --max 10 --timeout 30 --format value | wc -l)" -eq 10 ]
[ $((SECONDS - began)) -lt 20 ] || { echo "a closed pipe held up its group for $((SECONDS - began)) s" >&2; exit 1; }

maestro publish "$topic.headers" --value 1 --header a=b --header a=c --header d=e >/dev/null
expect '"headers":{"a":["b","c"],"d":"e"}' maestro subscribe "$topic.headers" --max 1 --format json
expect ']  {a=b, a=c, d=e}  1' maestro subscribe "$topic.headers" --max 1
maestro publish "$topic.bytes" --value 1 --key $'\xff\xfe' --header h=$'\xfa' >/dev/null
expect '"key":{"base64":"//4="}' maestro subscribe "$topic.bytes" --max 1 --format json
expect '"headers":{"h":{"base64":"+g=="}}' maestro subscribe "$topic.bytes" --max 1 --format json
if maestro --broker kafka://127.0.0.1:99999 status 2>/dev/null; then exit 1; fi

letters=$topic.billing.dlq
for reason in rejected invalid; do
  seq 1 30 | sed "s/.*/{\"n\":&,\"reason\":\"$reason\"}/" | maestro publish "$letters" --jsonl --key-field reason \
    --header "dlq-topic=$topic" --header dlq-group=billing --header dlq-attempts=4 --header "dlq-reason=$reason" --header "dlq-error-message=card $reason" >/dev/null
done
ends_with() { # STATUS COMMAND…
  local wanted=$1 status=0
  shift
  "$@" >"$scratch" 2>&1 || status=$?
  [ $status -eq "$wanted" ] || { echo "$*: ended with $status, not $wanted: $(cat "$scratch")" >&2; exit 1; }
}
says_nothing_of() { if grep -q "$1" "$scratch"; then echo "it said: $(cat "$scratch")" >&2; exit 1; fi; }
expect 'would replay 30 of 60' maestro dlq replay "$letters" --reason rejected --dry-run
ends_with 0 maestro dlq list "$letters" --limit 60
says_nothing_of 'there are more'
ends_with 0 maestro dlq list "$letters" --limit 59
grep -q 'there are more than 59' "$scratch"
for verb in list replay 'replay --dry-run'; do
  # shellcheck disable=SC2086
  ends_with 4 maestro dlq $verb "$letters" --key nobodys
done
says_nothing_of 'another replay'
expect 'replayed 10 of ' maestro dlq replay "$letters" --reason rejected --limit 10 --rate 100
expect 'replayed 20 of ' maestro dlq replay "$letters" --reason rejected
expect 'replayed 0 of 0' maestro dlq replay "$letters" --reason rejected
expect 'replayed 30 of 60' maestro dlq replay "$letters" --error 'card invalid'
expect ': 60 messages kept' maestro topics describe "$topic"
ends_with 4 maestro dlq purge "$topic" --yes
ends_with 0 maestro dlq purge "$letters" --yes
for verb in 'purge --yes' list replay; do
  # shellcheck disable=SC2086
  ends_with 4 maestro dlq $verb "$letters"
done
maestro topics delete "$topic" --yes >/dev/null

# What cannot be published is passed over, and told.
letters=$topic.stuck.dlq
leave() { maestro publish "$letters" --key k --header "dlq-topic=$1" --header dlq-group=stuck --header dlq-attempts=1 --header dlq-reason=rejected >/dev/null; }
maestro topics create "$topic.small" --partitions 1 --config max.message.bytes=1000 >/dev/null
seq 1 5 | leave "$topic.small"
printf '%4000s\n' x | leave "$topic.small"
echo 1 | leave 'bad topic'
echo 1 | leave __transaction_state
maestro publish "$letters" --value 'none of ours' >/dev/null
seq 6 10 | leave "$topic.small"
expect 'left out 1 whose dlq- headers are missing or cannot be read' both maestro dlq list "$letters"
if said=$(maestro dlq replay "$letters" --json 2>/dev/null); then exit 1; fi
[[ $said == *'"ended_early":false'*'"replayed":10'*'"foreign":1,"failed":3,"first_failure":{"position":"'*'"error":"message_too_large"'* ]] \
  || { echo "a replay that passed over some said: $said" >&2; exit 1; }
expect 'small: 10 messages kept' maestro topics describe "$topic.small"
expect '3 of the dead letters cannot be published and stay where they are; the first is ' both maestro dlq replay "$letters" --key k
"$program" --broker "$url" dlq replay "$letters" --error '' --rate 5 --json >"$scratch" 2>/dev/null &
replay=$!
until [[ $(maestro topics describe "$topic.small") == *': 2'[1-9]* ]]; do :; done
kill "$replay"
if wait "$replay"; then exit 1; fi
grep -q '"ended_early":true.*"replayed":[1-9]' "$scratch"

# A replay that was killed: the next one says what it waits for, and has its place soon.
letters=$topic.shipping.dlq
seq 1 20 | maestro publish "$letters" --header "dlq-topic=$topic.again" --header dlq-group=shipping --header dlq-attempts=1 \
  --header dlq-reason=rejected >/dev/null
"$program" --broker "$url" dlq replay "$letters" --rate 10 >/dev/null 2>&1 &
replay=$!
until [[ $(maestro topics describe "$topic.again" 2>/dev/null) == *' messages kept'* ]]; do :; done
kill -9 "$replay"
began=$SECONDS
hint=$(maestro dlq replay "$letters" 2>&1 >/dev/null)
[[ $hint == *"another replay of these dead letters runs, or was killed a moment ago"*session_timeout* ]] || { echo "it did not say what it waits for: $hint" >&2; exit 1; }
[ $((SECONDS - began)) -lt 20 ] || { echo "the place of a killed replay was waited for for $((SECONDS - began)) s" >&2; exit 1; }
copies=$(maestro topics describe "$topic.again" | sed -n 's/.* \([0-9]*\) messages kept.*/\1/p')
[[ $copies == 20 || $copies == 21 ]] || { echo "$copies copies of 20, one of which may have come twice" >&2; exit 1; }
maestro topics create "$topic.made" --partitions 2 --config retention.ms=60000 | grep -q 'with 2 partitions'
misspelt=${topic/command/comand}.made
for words in "topics describe $misspelt" "topics delete $misspelt --yes" "dlq list $misspelt" "dlq replay $misspelt"; do
  read -r -a words <<<"$words"
  expect "did you mean '$topic.made'? The topic does not exist" both maestro "${words[@]}"
done
expect "no message came from '$topic.lines'" both maestro subscribe "$topic.lines" -o auto_offset_reset=latest --timeout 2
if maestro topics create "$topic.bad" --config retention.ms=tomorrow 2>/dev/null; then exit 1; fi
echo "the command works on Kafka"
