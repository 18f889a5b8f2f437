#!/bin/bash
# check_completion_fish.sh PROGRAM: what fish offers after some words. Ends with 77 where there is no fish.
set -u
command -v fish >/dev/null || { echo "skipped: fish is not installed" && exit 77; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
ln -s "$(realpath "$1")" "$folder/maestro"
export HOME=$folder PATH=$folder:$PATH
status=0
expect() {
  local said
  said=$(fish --no-config -c 'maestro completion fish | source; complete -C $argv[1]' -- "$2" | head -3 | tr '\n' ' ')
  if [ "${said% }" != "$1" ]; then
    echo "after '$2': $said; expected: $1" >&2
    status=1
  fi
}
expect "demo dlq" "maestro d"
expect "--mode=latency" "maestro bench --mode=l"
expect "latency" "maestro bench --mode l"
expect "linger" "maestro config lin"
expect "linger=" "maestro status -o lin"
expect "mode=pubsub" "maestro status -o mode=p"
expect "list" "maestro --broker memory://demo topics l"
exit $status
