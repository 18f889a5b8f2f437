#!/bin/bash
# check_completion_bash.sh PROGRAM: what bash offers after some words.
set -u
program=$1
source <("$program" completion bash)
status=0
expect() {
  local expected=$1
  shift
  COMP_WORDS=("$program" "$@")
  COMP_CWORD=$#
  COMPREPLY=()
  _maestro
  if [ "${COMPREPLY[*]:0:3}" != "$expected" ]; then
    echo "after 'maestro $*': ${COMPREPLY[*]}; expected: $expected" >&2
    status=1
  fi
}
expect "demo dlq" d
expect "throughput latency sequential" bench --mode ""
expect "throughput" bench --mode t
expect "latency" bench --mode = l
expect "text value json" subscribe orders --format ""
expect "bash zsh fish" completion ""
expect "completion" --broker memory : //demo comp
expect "demo" --broker status : 6379 de
expect "" --broker ""
expect "list" --broker demo topics l
expect "create" topics --option = dlq cr
expect "memory kafka redis" config ""
expect "linger" config lin
expect "kafka" config ka
expect "client_id= group_id= auto_offset_reset=" status -o ""
expect "linger=" status -o lin
expect "auto_offset_reset=" --option = auto_off
expect "streams pubsub" status -o mode =
expect "pubsub" status -o mode = p
expect "latest" status --option = auto_offset_reset = l
expect "true false" status -o wait_fsync = ""
expect "" status -o linger = ""
expect "list" -o mode = pubsub topics l
exit $status
