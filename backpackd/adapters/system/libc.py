"""The C library's calls that Python does not offer, with their types declared once.

Nothing is decided here. Only functions that an adapter calls are declared. The platform decides
which of them exist.
"""

import ctypes
import os
import sys

libc = ctypes.CDLL(None, use_errno=True)

libc.mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
)
libc.mmap.restype = ctypes.c_void_p
libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
libc.mlock.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
libc.malloc.argtypes = (ctypes.c_size_t,)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = (ctypes.c_void_p,)
libc.free.restype = None
libc.write.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)
libc.write.restype = ctypes.c_ssize_t


class Timespec(ctypes.Structure):
    """A `struct timespec`: seconds and nanoseconds."""

    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class Itimerspec(ctypes.Structure):
    """A `struct itimerspec`: the period of a repeating timer, and when it first rings."""

    _fields_ = (("interval", Timespec), ("value", Timespec))


if sys.platform == "linux":
    libc.syscall.restype = ctypes.c_long
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    libc.prctl.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)
    libc.inotify_init1.argtypes = (ctypes.c_int,)
    libc.inotify_add_watch.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)
    libc.timerfd_create.argtypes = (ctypes.c_int, ctypes.c_int)
    libc.timerfd_settime.argtypes = (
        ctypes.c_int,
        ctypes.c_int,
        ctypes.POINTER(Itimerspec),
        ctypes.POINTER(Itimerspec),
    )

if sys.platform == "darwin":
    libc.minherit.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    libc.ptrace.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_int)


def check(result: int, call: str) -> int:
    """Turn a C call's -1 into an OSError with its errno.

    Args:
        result: what the call returned.
        call: its name, for the error.

    Returns:
        `result`, when it is not -1.

    Raises:
        OSError: the call failed.
    """
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
    return result
