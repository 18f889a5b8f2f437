#!/bin/bash
# check_completion.sh PROGRAM: what bash offers after some words.
set -u
source <("$1" completion bash)
status=0
expect() {
  local expected=$1
  shift
  COMP_WORDS=(maestro "$@")
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
expect "bash zsh --help" completion ""
expect "completion" --broker memory : //demo comp
expect "demo" --broker status : 6379 de
expect "" --broker ""
expect "list" --broker demo topics l
expect "create" topics --option = dlq cr
exit $status
