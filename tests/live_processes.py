"""Processes and threads for the tests that read /proc or ask the running kernel.

A child runs a few lines of Python, prints a line and waits on its standard input, so that its
memory holds still. Privileges are dropped in a thread, where the kernel keeps them per thread.
"""

from __future__ import annotations

import ctypes
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

_CAPSET, _PRCTL, _SET_NO_NEW_PRIVS, _SET_SECCOMP, _MODE_FILTER = 126, 157, 38, 22, 2


class Child:
    """A Python process that waits; `tell` lets it go on."""

    def __init__(self, code: str) -> None:
        code = f"import sys\n{code}\nsys.stdin.readline()\n"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self.process.pid
        self.line = self.listen()

    def listen(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tell(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()


@contextmanager
def child(code: str) -> Iterator[Child]:
    """Start a child that runs `code`, which prints one line; end it afterwards."""
    it = Child(code)
    try:
        yield it
    finally:
        it.process.kill()
        it.process.communicate()


def in_thread(prepare: Callable[[], None], function: Callable[[], T]) -> T:
    """Return what `function` returns in a thread that has called `prepare` first."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            prepare()
            results.append(function())
        except BaseException as e:
            errors.append(e)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def drop_capabilities() -> None:
    """Give up all capabilities of this thread: capset(2), which is per thread."""
    header = struct.pack("Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this thread
    if ctypes.CDLL(None, use_errno=True).syscall(_CAPSET, header, bytes(24)):
        raise OSError(ctypes.get_errno(), "capset")


def refuse(number: int, errno: int) -> None:
    """Make system call `number` fail with `errno` in this thread: a seccomp(2) filter."""
    code = b"".join(
        struct.pack("HBBI", *instruction)
        for instruction in (
            (0x20, 0, 0, 0),  # load the number of the system call
            (0x15, 0, 1, number),  # equal: next, else the one after
            (0x06, 0, 0, 0x00050000 | errno),  # SECCOMP_RET_ERRNO
            (0x06, 0, 0, 0x7FFF0000),  # SECCOMP_RET_ALLOW
        )
    )
    program = ctypes.create_string_buffer(code, len(code))
    filter_ = struct.pack("HxxxxxxQ", 4, ctypes.addressof(program))
    libc = ctypes.CDLL(None, use_errno=True)
    one, zero = ctypes.c_long(1), ctypes.c_long(0)
    if libc.syscall(_PRCTL, _SET_NO_NEW_PRIVS, one, zero, zero, zero):
        raise OSError(ctypes.get_errno(), "PR_SET_NO_NEW_PRIVS")
    if libc.syscall(_PRCTL, _SET_SECCOMP, ctypes.c_long(_MODE_FILTER), filter_):
        raise OSError(ctypes.get_errno(), "PR_SET_SECCOMP")
