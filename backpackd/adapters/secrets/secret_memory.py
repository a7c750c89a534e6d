"""Memory for the master key: not readable through /proc, not swapped, not inherited, not dumped.

One page with fixed places. Nothing outside this mapping keeps the stored bytes, and nothing here
hands out a copy: readers get a view of the mapping itself, for the length of a `with` block.
`adapters.secrets.scrubbing` overwrites copies that a caller makes.

An arena belongs to one thread, like all state of the daemon.
"""

import ctypes
import mmap
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal

from backpackd.adapters.refusal import is_forbidden
from backpackd.adapters.system.libc import check, libc
from backpackd.core.errors import HomeError, LimitError

SLOT_SIZE: Final = 64
_PAGE: Final = mmap.PAGESIZE
_MEMFD_SECRET: Final = 447  # the same number on every architecture, memfd_secret(2)
_VM_INHERIT_NONE: Final = 2  # minherit(2) of macOS
_MAP_FAILED: Final = ctypes.c_void_p(-1).value

Kind = Literal["memfd_secret", "mlock"]


class Arena:
    """Implements `ports.SecretArena` in one page of memory.

    Attributes:
        kind: how the page is guarded: `memfd_secret` takes it out of reach of every other
            process and of the kernel's own copying (root included); `mlock` keeps it out of swap.
        refused: with what error the kernel refused the stronger way; 0 where it did not.
    """

    def __init__(self) -> None:
        """Map the page, the strongest way that this machine has.

        Raises:
            HomeError: the page can be had neither way. A plain mapping is never used instead.
        """
        self.kind: Kind
        self._address, self.kind, self.refused = _map()
        page = (ctypes.c_ubyte * _PAGE).from_address(self._address)
        self._view = memoryview(page).cast("B")
        self._free = list(range(0, _PAGE, SLOT_SIZE))
        self._slots: set[Slot] = set()
        self._closed = False

    def store(self, secret: bytes | bytearray | memoryview) -> "Slot":
        """Copy `secret` into a slot, byte for byte from its buffer, with no copy in between.

        Args:
            secret: 1 to 64 bytes. The caller drops its own copy.

        Returns:
            The slot that now holds it.

        Raises:
            LimitError: the arena is full.
            ValueError: `secret` is empty or too long, or the arena is closed.
        """
        length = memoryview(secret).nbytes
        if self._closed or not 0 < length <= SLOT_SIZE:
            raise ValueError("the arena is closed, or the secret does not fit into a slot")
        if not self._free:
            raise LimitError("the secret memory is full: restart the daemon")
        offset = self._free.pop()
        self._view[offset : offset + length] = memoryview(secret).cast("B")
        slot = Slot(self, offset, length)
        self._slots.add(slot)
        return slot

    def close(self) -> None:
        """Wipe every slot and unmap the page. Closing twice is harmless.

        While a view is lent the page stays mapped, so that its reader does not crash; that slot
        is wiped when the reader is done.
        """
        self._closed = True
        for slot in tuple(self._slots):
            slot.wipe()
        self._unmap_when_empty()

    def _lend(self, offset: int, length: int) -> memoryview:
        return self._view[offset : offset + length].toreadonly()

    def _take_back(self, slot: "Slot", offset: int) -> None:
        ctypes.memset(self._address + offset, 0, SLOT_SIZE)
        self._free.append(offset)
        self._slots.discard(slot)
        self._unmap_when_empty()

    def _unmap_when_empty(self) -> None:
        if self._closed and not self._slots and self._address:
            self._view.release()
            check(libc.munmap(self._address, _PAGE), "munmap")
            self._address = 0


class Slot:
    """Implements `ports.SecretSlot`: one secret in an arena."""

    def __init__(self, arena: Arena, offset: int, length: int) -> None:
        self._arena = arena
        self._offset = offset
        self._length = length
        self._lent = 0
        self._wiped = False

    @contextmanager
    def open(self) -> Iterator[memoryview]:
        """Lend a read-only view of the secret for the length of a `with` block.

        The view is over the arena itself and is released at the end; one that was kept raises
        ValueError from then on.

        Yields:
            The secret's bytes.

        Raises:
            ValueError: the slot was wiped.
        """
        if self._wiped:
            raise ValueError("this slot of secret memory was wiped")
        self._lent += 1
        view = self._arena._lend(self._offset, self._length)  # noqa: SLF001 - one class in two
        try:
            yield view
        finally:
            view.release()
            self._lent -= 1
            self._overwrite_when_wiped()

    def wipe(self) -> None:
        """Overwrite the secret and free its place. Wiping twice is harmless.

        From now on nobody can open it. A reader inside `open` keeps its view, and the bytes are
        overwritten when it leaves. Otherwise a key derived from a half-wiped master key would seal
        data that nothing opens again, or that anybody can open.
        """
        if not self._wiped:
            self._wiped = True
            self._overwrite_when_wiped()

    def _overwrite_when_wiped(self) -> None:
        if self._wiped and not self._lent:
            self._arena._take_back(self, self._offset)  # noqa: SLF001 - one class in two


def _map() -> tuple[int, Kind, int]:
    """Map one page as secret memory, else as locked memory, and say why it is not the former."""
    refused = 0
    if sys.platform == "linux":
        try:
            return _map_secret(), "memfd_secret", 0
        except OSError as error:
            # Older than 5.14, not enabled, filtered, or no room under the limit. `kind` tells,
            # and `status` with it, so this is no silent step down.
            refused = error.errno or 0
    try:
        return _map_locked(), "mlock", refused
    except OSError as error:
        remedy = (
            "raise the limit on locked memory (`ulimit -l`, or LimitMEMLOCK= in the unit) to at "
            "least 64 KiB"
        )
        if is_forbidden(error):
            # mlock(2) answers EPERM where the limit is 0 as well.
            remedy += ", or let the sandbox allow mlock and madvise"
        raise HomeError(
            "cannot lock one page of memory for the master key "
            f"({os.strerror(error.errno or 0)}): {remedy}"
        ) from error


def _map_secret() -> int:
    fd = check(
        libc.syscall(ctypes.c_long(_MEMFD_SECRET), ctypes.c_long(os.O_CLOEXEC)), "memfd_secret"
    )
    # ctypes and not the mmap module, which keeps a duplicate of the descriptor: through an open
    # descriptor, /proc/PID/fd would let a process of the same user map the very same page.
    try:
        os.ftruncate(fd, _PAGE)
        address = _mmap(mmap.MAP_SHARED, fd)
    finally:
        os.close(fd)
    return _guarded(address)


def _map_locked() -> int:
    address = _mmap(mmap.MAP_PRIVATE | mmap.MAP_ANON, -1)
    try:
        check(libc.mlock(address, _PAGE), "mlock")
    except OSError:
        libc.munmap(address, _PAGE)
        raise
    return _guarded(address)


def _mmap(flags: int, fd: int) -> int:
    address: int | None = libc.mmap(None, _PAGE, mmap.PROT_READ | mmap.PROT_WRITE, flags, fd, 0)
    if address is None or address == _MAP_FAILED:
        number = ctypes.get_errno()
        raise OSError(number, f"mmap: {os.strerror(number)}")
    return address


def _guarded(address: int) -> int:
    """Keep the page out of children and core files, and have it backed by memory at once."""
    try:
        if sys.platform == "linux":
            check(libc.madvise(address, _PAGE, mmap.MADV_DONTFORK), "madvise")
            check(libc.madvise(address, _PAGE, mmap.MADV_DONTDUMP), "madvise")
        elif sys.platform == "darwin":
            check(libc.minherit(address, _PAGE, _VM_INHERIT_NONE), "minherit")
    except OSError:
        libc.munmap(address, _PAGE)
        raise
    ctypes.memset(address, 0, _PAGE)
    return address
