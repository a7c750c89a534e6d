"""The command line of the package without dependencies, beside `get`: `panic` and `lock`.

Everything else needs the full package, which is what it says.
"""

import os

from backpack_client.address import socket_path
from backpack_client.failures import EXIT_DONE, Failure, full_package_needed
from backpack_client.fastpath import ending, get


def run(arguments: "list[str]") -> int:
    """Carry out a command for the daemon that the environment names.

    Args:
        arguments: what follows the name of the program.

    Returns:
        The exit code. What there is to say goes to standard error.
    """
    try:
        get.say(_run(arguments))
    except Failure as failure:
        get.tell(failure)
        return failure.exit_code
    return EXIT_DONE


def _run(arguments: "list[str]") -> str:
    if arguments == ["lock"]:
        ended = ending.lock(socket_path(os.environ))
        return f"the vault is locked; leases ended: {ended}\n"
    if arguments == ["panic"]:
        ended, requests = ending.panic(socket_path(os.environ))
        return f"the vault is locked; leases ended: {ended}, requests ended: {requests}\n"
    raise full_package_needed()
