"""What was drawn and is shown once: into a new private file, or on the terminal."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import TypeVar

from backpack_client.console import terminal
from backpack_client.files.private_files import NewFile

_Made = TypeVar("_Made")


def keep_drawn(
    path: str | None, make: Callable[[], _Made], drawn: Callable[[_Made], str], title: str
) -> _Made:
    """Make something and keep what was drawn for it.

    Args:
        path: a file that is not there; it is made first, so that nothing is drawn in vain. None:
            shown on the terminal.
        make: makes it.
        drawn: what of it is to be kept; empty for nothing.
        title: what that is, for people.
    """
    with ExitStack() as stack:
        file = stack.enter_context(NewFile(path)) if path is not None else None
        made = make()
        text = drawn(made)
        if text and file is not None:
            file.write(text.encode() + b"\n")
        elif text:
            terminal.show_secret(["", f"{title}, shown this once:", "", f"    {text}", ""])
    if text and path is not None:
        terminal.say_line(f"the {title} is in {path}")
    return made
