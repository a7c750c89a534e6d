"""Looking again at the processes that ask: what they run by now.

A process stays itself when it executes another program. Who answers has to see what it runs at that
moment, and not what it ran when it asked.
"""

import asyncio
from dataclasses import replace

from backpackd.core.access.orphans import Place, place_of
from backpackd.core.errors import LimitError, ProcessGoneError
from backpackd.core.peer_facts import Answer, Image, PeerFacts, ProcessFacts, ProcessId
from backpackd.ports import Processes


def look_again(processes: Processes, facts: PeerFacts) -> PeerFacts:
    """Read again what the processes of a chain run.

    Which processes they are and how they stand to each other stays as it was attested: that is what
    was asked for. Of one that has ended or hides itself, the path that it was last seen with stays
    for a person to read. `Image.answer` says that this is not known to run any more.

    Raises:
        LimitError: too many files are open to look.
    """
    found: dict[ProcessId, ProcessFacts] = {}
    for process in facts.chain:
        # One look reads all above it. Further ones are for those that it has been cut off from.
        if process.id not in found:
            found.update(_chain_of(processes, process.id.pid, facts))
    chain = tuple(_now(processes, each, found.get(each.id)) for each in facts.chain)
    return replace(facts, chain=chain)


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
        held = processes.hold(process)
    except (ProcessGoneError, LimitError, OSError):
        return None
    try:
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
    try:
        chain = processes.attest(held, facts.uid, facts.gid).chain
        # By identity: another process that has the pid by now is none of those that ask.
        return {each.id: each for each in chain}
    except ProcessGoneError:
        return {}
    finally:
        held.close()


def _now(processes: Processes, process: ProcessFacts, found: ProcessFacts | None) -> ProcessFacts:
    if found is None:
        # Not to be read is not to have ended: what lives on unseen may run anything.
        ended = processes.ended(process.id)
        return replace(process, image=Image(Answer.ENDED if ended else Answer.HIDDEN))
    hidden = found.image.answer is Answer.HIDDEN
    return replace(
        process,
        uid=found.uid,
        executable=process.executable if hidden else found.executable,
        unit=found.unit,
        name=found.name,
        image=found.image,
    )
