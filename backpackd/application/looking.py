"""Looking again at the processes that ask: what they run by now.

A process stays itself when it executes another program. Who answers has to see what it runs at that
moment, and not what it ran when it asked.
"""

import asyncio
import errno
from dataclasses import replace

from backpackd.core.errors import LimitError, ProcessGoneError
from backpackd.core.facts import PeerFacts, ProcessFacts, ProcessId
from backpackd.core.leftovers import Place, place_of
from backpackd.ports import Processes


def look_again(processes: Processes, facts: PeerFacts) -> PeerFacts:
    """Read again what the processes of a chain run.

    Which processes they are and how they stand to each other stays as it was attested: that is what
    was asked for. One that has ended stays as it was, too.

    Raises:
        LimitError: too many files are open to look.
    """
    found: dict[ProcessId, ProcessFacts] = {}
    for process in facts.chain:
        # One look reads all above it. Further ones are for those that it has been cut off from.
        if process.id not in found:
            found.update(_chain_of(processes, process.id.pid, facts))
    return replace(facts, chain=tuple(_now(each, found.get(each.id)) for each in facts.chain))


async def digested(processes: Processes, facts: PeerFacts) -> PeerFacts:
    """Add digests of what the processes of a chain run.

    Of all of the chain: a rule that denies looks beyond the tree (`selectors.concerns`).
    """
    digests: dict[ProcessId, str] = {}
    for process in facts.chain:
        path = process.executable
        if path is not None:
            digest = await asyncio.to_thread(processes.digest, process.id, path)
            if digest is not None:
                digests[process.id] = digest
    return replace(facts, digests=digests)


def read_place(processes: Processes, process: ProcessId) -> Place | None:
    """Read where a process runs; None: it has ended, or cannot be read."""
    try:
        held, found = processes.pin(process.pid)
    except (ProcessGoneError, OSError):
        return None
    try:
        if found != process:
            return None
        # Whose process it is decides what stands above it as a manager, and nobody said it here.
        owner = processes.attest(held, 0, 0).process.uid
        facts = processes.attest(held, owner, 0)
    except ProcessGoneError:
        return None
    finally:
        held.close()
    return place_of(facts, facts.process)


def _chain_of(processes: Processes, pid: int, facts: PeerFacts) -> dict[ProcessId, ProcessFacts]:
    try:
        held, _ = processes.pin(pid)
    except ProcessGoneError:
        return {}
    except OSError as error:
        if error.errno not in {errno.EMFILE, errno.ENFILE}:
            raise
        raise LimitError("too many files are open to look at who asks: try again") from None
    try:
        chain = processes.attest(held, facts.uid, facts.gid).chain
        # By identity: another process that has the pid by now is none of those that ask.
        return {each.id: each for each in chain}
    except ProcessGoneError:
        return {}
    finally:
        held.close()


def _now(process: ProcessFacts, found: ProcessFacts | None) -> ProcessFacts:
    if found is None:
        return process
    # What hides itself, as the client does before it takes a passphrase or a value, is shown as it
    # was last seen: it is the same process.
    executable = found.executable or process.executable
    return replace(process, executable=executable, unit=found.unit, name=found.name)
