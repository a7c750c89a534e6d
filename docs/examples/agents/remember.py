"""A small agent in Python that remembers how often it has run, and what it was told to say.

Start it where its agent.lock is:

    backpack-client run -- python3 remember.py "something to remember"

The key comes from `run`, in the environment; personality and memory come from the lock. It never
prints the key.
"""

import hashlib
import hmac
import os
import sys
from typing import Any

from backpack_client import Backpack, Failure

LONGEST = 5


def main() -> int:
    """Do one task, and remember it."""
    key = os.environ.get("DEMO_API_KEY")
    if key is None:
        sys.stderr.write("remember: start me with: backpack-client run -- python3 remember.py\n")
        return 2
    task = " ".join(sys.argv[1:]) or "nothing in particular"

    def remember(memory: dict[str, Any]) -> None:
        # Called again with a newer memory if another one of us saves at the same moment.
        memory["runs"] = memory.get("runs", 0) + 1
        memory["tasks"] = [*memory.get("tasks", []), task][-LONGEST:]

    try:
        with Backpack() as backpack:
            agent = backpack.agent()
            sys.stdout.write(f"remember: my tone is {agent.personality.get('tone', 'my own')}\n")
            signature = hmac.new(key.encode(), task.encode(), hashlib.sha256).hexdigest()
            sys.stdout.write(f"remember: signed my task with my key: {signature[:16]}...\n")
            agent.update(remember)
            sys.stdout.write(f"remember: this was run {agent.memory['runs']}\n")
    except Failure as failure:
        sys.stderr.write(f"remember: {failure}\n")
        return failure.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
