"""The exceptions of ptwalk.

What a system call would refuse raises :class:`KernelError` with the errno that the kernel returns;
what no system call judges (a dtype, a profile name, a raw entry outside the frames) raises
:class:`InvalidArgument`; a process that cannot be read raises :class:`LiveError`.
"""

from __future__ import annotations

import errno as _errno
from typing import Any


class PtwalkError(Exception):
    """Base of every exception that ptwalk raises on purpose."""


class InvalidArgument(PtwalkError, ValueError):  # noqa: N818 - the name is public
    """An argument that no system call judges; the text names value, rule and remedy."""


class _ErrnoError(PtwalkError, OSError):
    """An error with an errno, printed with the errno's name."""

    errno: int
    strerror: str

    def __init__(self, errno: int, message: str) -> None:
        super().__init__(errno, message)

    def __str__(self) -> str:
        name = _errno.errorcode.get(self.errno, "unknown errno")
        return f"[Errno {self.errno}] {name}: {self.strerror}"


class KernelError(_ErrnoError):
    """A system call that fails, with the errno that the kernel returns.

    Parameters
    ----------
    errno : int
        The kernel's error number.
    message : str
        System call, value, rule and remedy.
    done : object, optional
        What was done before the call stopped half-way (a `ProtectResult`, a number of bytes);
        None for a call that cannot be partly done.
    """

    def __init__(self, errno: int, message: str, done: Any = None) -> None:
        super().__init__(errno, message)
        self.done = done


class LiveError(_ErrnoError):
    """A process that cannot be read: it is gone (ESRCH) or reading it is not allowed (EPERM)."""
