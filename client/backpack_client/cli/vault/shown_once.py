"""Keeps a drawn secret that is shown once: in a new private file, or on the terminal."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import TypeVar

from backpack_client.console import terminal
from backpack_client.files.private_files import NewFile

_Made = TypeVar("_Made")


def keep_drawn(
    path: str | None, make: Callable[[], _Made], drawn: Callable[[_Made], str], title: str
) -> _Made:
    """Make something, and keep the secret that was drawn for it.

    Args:
        path: a new file. It is made first, so that nothing is drawn in vain. None: the secret is
            shown on the terminal.
        make: makes it.
        drawn: returns the secret; empty if there is none.
        title: describes the secret for people.
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
