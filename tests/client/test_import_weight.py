"""What the fast path must not load: every import is paid for on every `get`."""

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {
    *("grpc", "google", "click", "rich", "platformdirs", "cryptography", "keyring", "backpackd"),
    *("backpack_proto", "json", "re", "argparse", "pathlib", "socket", "struct", "enum", "typing"),
    *("dataclasses", "collections", "functools", "asyncio", "logging", "ssl", "select", "shlex"),
    *("subprocess", "inspect", "importlib", "contextlib", "tempfile", "threading", "urllib"),
}

REPORT = "print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)\n"


def modules_after(program: str, socket_path: Path) -> set[str]:
    """Say what is loaded after a program, besides what Python itself loads to start."""

    def loaded(source: str) -> set[str]:
        done = subprocess.run(
            [sys.executable, "-c", f"import sys\n{source}{REPORT}"],
            env={"BACKPACK_SOCKET": str(socket_path), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            check=True,
        )
        return set(done.stderr.decode().splitlines()[-1].split())

    return loaded(program) - loaded("")


def test_the_entry_point_loads_nothing_heavy(tmp_path: Path) -> None:
    loaded = modules_after("import backpack_client.__main__\n", tmp_path / "none")
    assert loaded == {"_socket", "backpack_client", "errno"}
    assert not loaded & HEAVY


@pytest.mark.parametrize("form", ["", "--json", "--export"])
def test_a_whole_get_loads_nothing_more(form: str, tmp_path: Path) -> None:
    server = (
        "import _socket, os, time\n"
        "from backpack_client.fastpath import get, hpack\n"
        "def frame(kind, flags, stream, payload):\n"
        "    size = len(payload).to_bytes(3, 'big')\n"
        "    return size + bytes((kind, flags)) + stream.to_bytes(4, 'big') + payload\n"
        "listener = _socket.socket(_socket.AF_UNIX)\n"
        "listener.bind(os.environ['BACKPACK_SOCKET'])\n"
        "listener.listen()\n"
        "if not os.fork():\n"
        "    _, listener = listener._accept()[0], listener\n"
    )
    assert server
    program = (
        "from backpack_client.fastpath import get, messages, unary\n"
        "answer = bytes.fromhex('12060a01411201' + '76')\n"
        "class Connection:\n"
        "    def close(self): pass\n"
    )
    assert program
