"""An agent in an environment of its own, run by `test_agent_environments`.

Takes the name of a module to import beside the client ("" for none) and prints one line of JSON.
"""

import asyncio
import importlib
import json
import sys
from typing import Any

STANDARD = sys.stdlib_module_names


def work() -> dict[str, Any]:
    from backpack_client import Backpack, Failure  # noqa: PLC0415 - after the module beside it

    told: dict[str, Any] = {}
    with Backpack() as backpack:
        told["listed"] = [key.name for key in backpack.list()]
        with backpack.lease("K", ttl="5m", reason="elsewhere") as keys:
            told["value"] = keys["K"]
            watch = backpack.watch_leases()
            told["events"] = [next(watch).kind]
            # What its thread does half way to the end.
            keys._renew_once()
            told["leases"] = len(backpack.leases())
        told["events"] += [next(watch).kind for _ in range(2)]
        watch.close()
        told["left"] = len(backpack.leases())
        with backpack.agent() as agent:
            agent.memory["runs"] = agent.memory["runs"] + 1
        told["memory"] = dict(backpack.agent().memory)
        try:
            backpack.status()
        except Failure as failure:
            told["status"] = failure.reason
    return told


async def work_async() -> dict[str, Any]:
    from backpack_client import AsyncBackpack  # noqa: PLC0415 - as above

    async with AsyncBackpack() as backpack, backpack.lease("K") as keys:
        watch = backpack.watch_leases()
        async for event in watch:
            watch.close()
            return {"value": keys["K"], "event": event.kind, "leases": len(await backpack.leases())}
    raise AssertionError("the watch begins with the lease that is live")


def main() -> None:
    if sys.argv[1]:
        importlib.import_module(sys.argv[1])
    told = {"blocking": work(), "asyncio": asyncio.run(work_async())}
    loaded = {name.partition(".")[0] for name in sys.modules}
    strangers = sorted(loaded - STANDARD - {"__main__", "backpack_client"})
    sys.stdout.write(json.dumps({**told, "strangers": strangers}) + "\n")


main()
