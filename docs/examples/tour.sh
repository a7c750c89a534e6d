#!/bin/sh
# The main job from nothing to a leased key, on a home and a socket that are thrown away at the end.
# Run by `make run`. Needs backpackd, backpack-client and python3 on PATH; touches nothing of yours.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
place=$(mktemp -d)
export BACKPACK_HOME="$place/home" BACKPACK_SOCKET="$place/run/backpackd.sock"
unset BACKPACK_PROFILE
passphrase="$place/passphrase"
value="$place/value"
umask 077

clean_up() {
    status=$?
    backpack-client stop >/dev/null 2>&1 || true
    rm -rf "$place"
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

say() {
    echo
    printf '# %s\n' "$@"
}
show() {
    printf '$ %s\n' "$*" | sed "s|$place|PLACE|g; s|$here/||g"
    code=0
    "$@" >"$place/out" 2>&1 || code=$?
    sed "s|$place|PLACE|g" "$place/out"
    if [ "$code" -ne 0 ]; then
        echo "the tour ends here: this should have worked (exit status $code)" >&2
        exit 1
    fi
}
show_refused() {
    printf '$ %s\n' "$*" | sed "s|$here/||g"
    if "$@" >"$place/out" 2>&1; then
        echo "this should have been refused" >&2
        exit 1
    else
        code=$?
    fi
    sed "s|$place|PLACE|g" "$place/out"
    printf '  (exit status %s)\n' "$code"
}

# A real one you would type; both files are gone with PLACE at the end.
python3 -c 'import secrets; print(" ".join(secrets.token_hex(3) for _ in range(4)))' >"$passphrase"
python3 -c 'import secrets; print(secrets.token_hex(16), end="")' >"$value"

say "A daemon for a throwaway home starts with init; only it will ever hold the master key."
show backpack-client init --passphrase-file "$passphrase"

say "Store a key. Changing what is stored takes the passphrase."
show backpack-client put DEMO_API_KEY --value-file "$value" --passphrase-file "$passphrase"

say "Any process may ask. Nobody has granted anything yet, so an agent's request waits for a person."
python3 "$here/agent.py" DEMO_API_KEY >"$place/agent" 2>&1 &
agent=$!
until code=$(sed -n 's/^agent: waiting for approval of //p' "$place/agent") && [ -n "$code" ]; do
    kill -0 "$agent" || break
    sleep 0.1
done

say "The person sees who asks, as the kernel told the daemon, and allows it this once."
show backpack-client approve "$code" --once --yes --passphrase-file "$passphrase"
wait "$agent"
cat "$place/agent"

say "Grant it for one lease within the hour, here to every program of this user." \
    "An agent's process tree (tree:PID) is the stronger subject: backpack-client grant --help"
show backpack-client grant DEMO_API_KEY --to "uid:$(id -u)" --for 1h --uses 1 \
    --reason "the tour" --passphrase-file "$passphrase"

say "Now the agent, a separate program on the Python API, leases the key and uses it."
show python3 "$here/agent.py" DEMO_API_KEY

say "The grant was good for one lease; the next one would wait for a person again."
show_refused backpack-client get DEMO_API_KEY --wait 0

say "What is stored (names, never values), and what state things are in."
show backpack-client list --all --passphrase-file "$passphrase"
show backpack-client status

say "Lock: the master key is dropped and every lease ends. Anybody may do that."
show backpack-client lock
show_refused backpack-client get DEMO_API_KEY

say "That was all. The daemon is stopped and the throwaway home removed."
