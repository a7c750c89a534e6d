"""What processes that ask run by the time of the answer: what is not as shown is not approved."""

from typing import Any

import pytest

from backpackd.core.errors import (
    ProcessGoneError,
    RequestChangedError,
    UserChangedError,
    WaitingError,
)
from backpackd.core.peer_facts import Answer, Image
from fakes import World, settled


async def asked() -> tuple[World, list[Any]]:
    """Return a world with a call that waits for a person."""
    world = await World().stocked()
    tasks = [world.asks("K", pid=101)]
    await world.waiting(1)
    return world, tasks


def approve(world: World) -> None:
    world.approvals.approve(world.approvals.pending()[0].code, once=False, root_pid=0, by=None)


@pytest.mark.parametrize("pid", [100, 101])
async def test_what_runs_another_program_than_was_shown_is_not_approved(pid: int) -> None:
    world, tasks = await asked()
    world.processes.exec(pid, "/usr/bin/python3")
    with pytest.raises(RequestChangedError) as caught:
        approve(world)
    assert (caught.value.status.value, caught.value.reason) == (
        "FAILED_PRECONDITION",
        "request-changed",
    )
    (request,) = world.approvals.pending()
    assert "/usr/bin/python3" in [process.executable for process in request.facts.chain]
    # It was refused that once: now it is known as it is.
    approve(world)
    assert await settled(*tasks) == [{"K": b"k"}]


async def test_a_listing_shows_what_runs_by_now_and_who_saw_it_before_approves_nothing() -> None:
    world, tasks = await asked()
    (request,) = world.approvals.pending()
    world.approvals.look([request])
    before = request.revision
    world.processes.exec(100, "/usr/bin/python3")
    world.clock.pass_(1)
    event = world.approvals.subscribe(None)
    world.approvals.look([request])
    assert request.facts.root.executable == "/usr/bin/python3"
    assert event.is_set()
    with pytest.raises(RequestChangedError):
        world.approvals.approve(request.code, once=False, root_pid=0, revision=before, by=None)
    world.approvals.approve(
        request.code, once=False, root_pid=0, revision=request.revision, by=None
    )
    assert await settled(*tasks) == [{"K": b"k"}]


async def test_many_listings_are_one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    world, tasks = await asked()
    looks: list[int] = []
    pin = world.processes.pin

    def noted(pid: int) -> Any:
        looks.append(pid)
        return pin(pid)

    monkeypatch.setattr(world.processes, "pin", noted)
    for _ in range(5):
        world.approvals.look(world.approvals.pending())
    assert looks == [101]
    world.approvals.close()
    await settled(*tasks)


async def test_the_root_is_looked_at_when_the_caller_has_ended_or_left() -> None:
    world = await World().stocked()
    with pytest.raises(WaitingError):
        await world.get("K")
    (request,) = world.approvals.pending()
    world.processes.kill(101)
    world.processes.exec(100, "/usr/bin/python3")
    with pytest.raises(RequestChangedError):
        approve(world)
    # Another process with the pid of the one that has ended is nobody who asked.
    world.processes.add(101, executable="/usr/bin/other")
    approve(world)
    assert request.facts.process.executable == "/usr/bin/tool"


async def test_what_hides_itself_after_asking_is_shown_as_such_before_it_is_approved() -> None:
    world, tasks = await asked()
    world.processes.exec(101, None)
    with pytest.raises(RequestChangedError):
        approve(world)
    (request,) = world.approvals.pending()
    # The path is the one that it was last seen with, and said to be no more than that.
    assert request.facts.process.executable == "/usr/bin/tool"
    assert request.facts.process.image.answer is Answer.HIDDEN
    approve(world)
    assert await settled(*tasks) == [{"K": b"k"}]


@pytest.mark.parametrize("path", ["/usr/bin/tool", None])
async def test_what_runs_a_file_without_a_path_is_not_approved(path: str | None) -> None:
    world, tasks = await asked()
    # In memory, or unlinked: the path that was seen before says nothing of it.
    world.processes.exec(101, path, image=Image(Answer.UNNAMED, 1, 99))
    with pytest.raises(RequestChangedError):
        approve(world)
    assert world.approvals.pending()[0].facts.process.executable == path
    world.approvals.close()
    await settled(*tasks)


async def test_an_interpreter_that_runs_another_script_is_not_approved() -> None:
    world, tasks = await asked()
    world.processes.claim(101, "python3 other.py")
    with pytest.raises(RequestChangedError):
        approve(world)
    world.approvals.close()
    await settled(*tasks)


async def test_what_cannot_be_read_any_more_but_lives_has_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, tasks = await asked()

    def unreadable(pid: int) -> Any:
        raise ProcessGoneError(f"process {pid} cannot be read")

    with monkeypatch.context() as patch:
        patch.setattr(world.processes, "pin", unreadable)
        with pytest.raises(RequestChangedError):
            approve(world)
    world.approvals.close()
    await settled(*tasks)


async def test_a_caller_that_became_another_user_while_it_waited_gets_nothing() -> None:
    world, tasks = await asked()
    (request,) = world.approvals.pending()
    world.processes.exec(101, "/usr/bin/tool", uid=0)
    with pytest.raises(RequestChangedError):
        approve(world)
    assert [found.id.pid for found in request.possible_roots] == [100]
    approve(world)
    assert [type(found) for found in await settled(*tasks)] == [UserChangedError]
