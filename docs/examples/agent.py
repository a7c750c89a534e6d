"""A minimal agent: leases a key for one task, uses it, gives it back.

Run it as `python3 agent.py KEY_NAME`. It never prints the value: it signs a message with it, as a
call to a real API would send it along.
"""

import hashlib
import hmac
import sys

from backpack_client import Backpack, Failure


def tell(code: str) -> None:
    """Say what a person needs to answer the request that the lease waits for."""
    sys.stdout.write(f"agent: waiting for approval of {code}\n")
    sys.stdout.flush()


def main() -> int:
    """Do one task with the key named on the command line."""
    name = sys.argv[1]
    try:
        with (
            Backpack() as backpack,
            backpack.lease(name, ttl="5m", reason="sign a greeting", on_wait=tell) as keys,
        ):
            value = keys.bytes(name)
            signature = hmac.new(value, b"hello", hashlib.sha256).hexdigest()
            sys.stdout.write(
                f"agent: leased {name}, signed a message with it: {signature[:16]}...\n"
            )
            sys.stdout.write(f"agent: live leases of my process tree: {len(backpack.leases())}\n")
        sys.stdout.write("agent: task done, lease given back\n")
    except Failure as failure:
        sys.stderr.write(f"agent: {failure}\n")
        return failure.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
