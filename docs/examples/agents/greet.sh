#!/bin/sh
# A small agent in shell. Start it where its agent.lock is:
#
#     backpack-client run -- sh greet.sh
#
# `run` has put the key and the personality into its environment. It never prints the key: it hashes
# a message with it, as a call to a real API would send it along.
set -eu

if [ -z "${DEMO_API_KEY:-}" ]; then
    printf 'greet: start me with: backpack-client run -- sh %s\n' "$0" >&2
    exit 2
fi

# printf is part of the shell, so that the key is in no process's arguments.
signature=$(printf '%s hello' "$DEMO_API_KEY" | sha256sum | cut -c1-16)

printf 'greet: I was told: %s\n' "${AGENT_SYSTEM_PROMPT:-nothing}"
printf 'greet: signed a message with my key: %s...\n' "$signature"
