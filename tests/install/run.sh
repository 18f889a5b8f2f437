#!/usr/bin/env bash
# Installs a build to an empty prefix, builds the outside program against it, and compares what that prints.
# usage: run.sh BUILD_FOLDER [SOURCE_FOLDER [COMPILER]]
set -euo pipefail
if [ $# -lt 1 ] || [ ! -f "$1/cmake_install.cmake" ]; then
  echo "usage: run.sh BUILD_FOLDER [SOURCE_FOLDER [COMPILER]], where BUILD_FOLDER was built; given: $*" >&2
  exit 2
fi
build=$1
source=${2:-$(dirname "$0")}
compiler=${3:-clang++-19}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

quietly() { # COMMAND …: its output only when it fails
  "$@" >"$work/log" 2>&1 || { cat "$work/log" >&2 && echo "failed: $*" >&2 && exit 1; }
}
# On paths with a blank, for people have them.
prefix="$work/some prefix"
quietly cmake --install "$build" --prefix "$prefix"
quietly cmake -S "$source" -B "$work/build" -G Ninja -DCMAKE_CXX_COMPILER="$compiler" -DCMAKE_BUILD_TYPE=Release \
  -DCMAKE_PREFIX_PATH="$prefix"
quietly cmake --build "$work/build"

expected='Received: {"event_type":"user_created","user_id":123}'
output=$("$work/build/outside")
if [ "$output" != "$expected" ]; then
  echo "the outside program printed: $output" >&2
  echo "expected was:                $expected" >&2
  exit 1
fi
if grep -rqF "$(cd "$build" && pwd)" "$prefix/lib" --include='*.cmake'; then
  echo "the installed package names the build folder $build, which its users do not have" >&2
  exit 1
fi
