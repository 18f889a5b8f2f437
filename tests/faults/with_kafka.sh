# For scripts that try the command on a real Kafka of their own. They are called with MAESTRO BROKERS, and may set before:
#   variant   of scripts/brokers
#   longest   seconds that `maestro` may take
# shellcheck shell=bash disable=SC2034
program=$1
brokers=$2
folder=$(mktemp -d)
running= # a process that ends with the script
broker() { "$brokers" "$1" kafka --variant "${variant:-single}" --dir "$folder/run" "${@:2}" 2>/dev/null; }
cleanup() {
  [ -z "$running" ] || kill -9 "$running" 2>/dev/null || true
  broker stop || true
  rm -rf "$folder"
}
trap cleanup EXIT
url=$(broker start | tail -n 1)
maestro() { timeout "${longest:-60}" "$program" --broker "$url" "$@"; }
fail() { echo "$*" >&2; cat "$folder/said" "$folder/errors" >&2; exit 1; }
kept() { maestro topics describe "$1" --json 2>/dev/null | sed -n 's/.*"messages":\([0-9]*\).*/\1/p'; }
