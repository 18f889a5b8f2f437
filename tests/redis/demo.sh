#!/usr/bin/env bash
# The demo on a real Redis: its exit status says whether every message is accounted for; and a publish to a channel, which has no position. Usage: demo.sh MAESTRO BROKERS
set -euo pipefail
url=$("$2" start redis 2>/dev/null | tail -n 1)
"$1" --broker "$url" demo
said=$("$1" --broker "$url" publish demo.channel --value 1 -o mode=pubsub)
[ "$said" = "published to demo.channel; nobody was there to get it" ] || { echo "$said" && exit 1; }
