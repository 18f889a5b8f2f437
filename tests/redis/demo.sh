#!/usr/bin/env bash
# The demo on a real Redis: its exit status says whether every message is accounted for. Usage: demo.sh MAESTRO BROKERS
set -euo pipefail
"$1" --broker "$("$2" start redis 2>/dev/null | tail -n 1)" demo
