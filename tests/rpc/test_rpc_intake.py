"""What the door is told of the requests that the server takes up."""

from pathlib import Path

import grpc
import pytest

from served import serving


async def test_the_door_is_told_of_every_request_by_the_last_of_its_marks(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        for marks in (("one",), ("of the peer", "two"), ()):
            served.channel.marks = marks
            with pytest.raises(grpc.RpcError):
                await served.unary("grpc.health.v1.Health/Check")
        assert served.taken_up == ["one", "two"]


async def test_it_is_told_of_requests_for_methods_that_do_not_exist(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        served.channel.marks = ("one",)
        with pytest.raises(grpc.RpcError):
            await served.unary("no.such/Method")
        assert served.taken_up == ["one"]


async def test_it_is_told_before_the_method_is_called(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        await served.unary("grpc.health.v1.Health/Check")
        assert len(served.taken_up) == 1
