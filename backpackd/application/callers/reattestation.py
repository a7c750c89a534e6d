"""Reads again what the requesting processes run now.

A process stays the same when it executes another program. The person who answers must see what it
runs at that moment, not what it ran when it asked.
"""

import asyncio
from dataclasses import replace

from backpackd.core.access.orphans import Place, place_of
from backpackd.core.errors import LimitError, ProcessGoneError
from backpackd.core.peer_facts import Answer, Image, PeerFacts, ProcessFacts, ProcessId
from backpackd.ports import Processes


def look_again(processes: Processes, facts: PeerFacts) -> PeerFacts:
    """Read again what the processes of a chain run.

    The processes and their relations stay as attested, because the request was made for them. If
    one has ended or hides itself, its last known path stays for a person to read. `Image.answer`
    says that this program may no longer run.

    Raises:
        LimitError: too many files are open to read.
    """
    found: dict[ProcessId, ProcessFacts] = {}
    for process in facts.chain:
        # One read covers all processes above. More reads are for those that were cut off from it.
        if process.id not in found:
            found.update(_chain_of(processes, process.id.pid, facts))
    chain = tuple(_now(processes, each, found.get(each.id)) for each in facts.chain)
    return replace(facts, chain=chain)


async def digested(processes: Processes, facts: PeerFacts) -> PeerFacts:
    """Add digests of the programs that the processes of a chain run.

    This covers the whole chain: a rule that denies looks beyond the tree (`selectors.concerns`).
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
    """Read where a process runs; None if it has ended or cannot be read."""
    try:
        held = processes.hold(process)
    except (ProcessGoneError, LimitError, OSError):
        return None
    try:
        # Its owner decides which processes above it are managers, and the caller does not know it.
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
        # By identity: another process that now has the pid did not ask.
        return {each.id: each for each in chain}
    except ProcessGoneError:
        return {}
    finally:
        held.close()


def _now(processes: Processes, process: ProcessFacts, found: ProcessFacts | None) -> ProcessFacts:
    if found is None:
        # A process that cannot be read has not ended: it may go on unseen and run anything.
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
