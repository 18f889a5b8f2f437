#!/bin/bash
# check_streams.sh PROGRAM: lost output is a failure of every verb, and an interrupt ends a publish that waits for its input.
set -u
program=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
fail() {
  echo "$*" >&2
  exit 1
}

while read -r -a words; do
  "$program" "${words[@]}" </dev/null >/dev/full 2>"$folder/errors"
  [ $? -eq 1 ] || fail "'${words[*]}' with lost output did not end with 1"
  grep -q 'standard output could not be written' "$folder/errors" || fail "'${words[*]}' did not say why: $(cat "$folder/errors")"
done <<'WORDS'
--version
--help
status --json
demo --fast --records 20 --json
bench --messages 100 --json
publish orders --json
publish orders --value 1 --json
topics create orders --json
config
completion bash
WORDS

# Nobody reads any more: no failure that has to be told.
(sleep 0.3; "$program" config 2>"$folder/errors"; echo $? >"$folder/status") | true
[ "$(cat "$folder/status")" = 141 ] || fail "a closed pipe ended it with $(cat "$folder/status")"
[ -s "$folder/errors" ] && fail "of a closed pipe it said: $(cat "$folder/errors")"

# A pipe that somebody holds open, and a named one that nobody has opened for writing.
mkfifo "$folder/pipe" "$folder/lonely"
exec 3<>"$folder/pipe"
interrupt() {
  local signal=$1 published=$2
  shift 2
  "$program" publish orders "$@" <"$folder/pipe" >"$folder/output" 2>"$folder/errors" &
  local process=$!
  for ((i = 0; i < 600; i++)); do
    [ -s "$folder/errors" ] && break
    sleep 0.05
  done
  sleep 0.2
  kill -s "$signal" "$process"
  wait "$process"
  [ $? -eq 1 ] || fail "publish did not end with 1 by $signal"
  grep -q "published $published to orders" "$folder/output" || fail "not counted: $(cat "$folder/output")"
  grep -q 'interrupted before the input ended' "$folder/errors" || fail "not said: $(cat "$folder/errors")"
}
printf 'one\ntwo\npart of a line' >&3
interrupt INT 2
interrupt TERM 0
interrupt TERM 0 --file "$folder/lonely"

# A line without an end is refused, and takes no more room than the largest message.
: >"$folder/errors"
"$program" publish orders --json <"$folder/pipe" >"$folder/output" 2>"$folder/errors" 3>&- &
process=$!
{ echo one; head -c 300000000 /dev/zero | tr '\0' x; } >&3
peak=$(sed -n 's/VmHWM:[[:space:]]*\([0-9]*\) kB/\1/p' "/proc/$process/status")
[ "$peak" -lt 150000 ] || fail "a line of 300 MB took $peak kB"
printf '\ntwo\n' >&3
exec 3>&-
wait "$process"
[ $? -eq 1 ] || fail "a line that is too long did not end with 1"
grep -q '"published":2,"failed":1' "$folder/output" || fail "not counted: $(cat "$folder/output")"
grep -q 'line 2 is longer than the 1,048,576 bytes' "$folder/errors" || fail "not said: $(cat "$folder/errors")"
