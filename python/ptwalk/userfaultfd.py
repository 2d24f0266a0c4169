"""Userfaultfd: the descriptor through which user space handles page faults.

Models the ioctls of fs/userfaultfd.c and mm/userfaultfd.c (v5.12 with the seed series, v6.1 to
v6.18). Nothing sleeps: a fault that would wait is returned as blocked by the access, and is pending
until it is woken.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NoReturn, Self, cast

from . import _core
from ._core import UffdMsg
from .errors import InvalidArgument, KernelError
from .flags import UffdFeature, UffdRegisterMode, parse
from .ranges import RangesDone, packed
from .uffd_features import feature_names

if TYPE_CHECKING:
    from types import TracebackType

    import numpy as np
    import numpy.typing as npt

    from ._core import ProtectResult
    from .space import Space

__all__ = ["UffdMsg", "Userfaultfd"]

_DONTWAKE = 1  # of COPY, ZEROPAGE, CONTINUE, POISON, MOVE
_WP = 2  # of COPY, CONTINUE
_ALLOW_SRC_HOLES = 2  # of MOVE
_WRITEPROTECT_WP, _WRITEPROTECT_DONTWAKE = 1, 2


def _mode(mode: int | None, bits: int, *, wake: bool) -> int:
    """Return the mode word of an ioctl: `mode` itself, or the options that were given."""
    return bits | (0 if wake else _DONTWAKE) if mode is None else mode


class _GoneSpace:
    """Stands for the address space of a userfaultfd that was made after a restored checkpoint."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __getattr__(self, name: str) -> NoReturn:
        raise InvalidArgument(self._text)


class Userfaultfd(_core.Userfaultfd):
    """A userfaultfd of one address space; `AddressSpace.userfaultfd` opens one.

    Parameters
    ----------
    mm : AddressSpace
        The address space.
    number : int
        Number of a context of that address space, as `UffdMsg.child` gives it.

    Raises
    ------
    InvalidArgument
        For a number that is no context of `mm`.

    Notes
    -----
    Where an ioctl takes options, `mode` is its mode word itself and replaces them.
    It stays open until `close` or the end of a ``with`` block, like a descriptor. Every method
    raises `KernelError` with EBADF on a closed one, and EINVAL for unaligned or empty ranges and
    ranges outside the user address space.
    """

    def __init__(self, mm: Space, number: int) -> None:
        super().__init__(mm._core, number)
        self._mm = mm
        self._number = number
        mm.machine._uffds.add(self)

    def _gone(self) -> None:
        """Refuse every call from now on: the checkpoint that was restored does not know it."""
        text = (
            f"userfaultfd {self._number} is gone: it was made after the checkpoint that was "
            "restored; open another"
        )
        self._mm = cast("Space", _GoneSpace(text))
        self._retire(text)

    @property
    def number(self) -> int:
        """Number of the context on its machine, as in `Vma.uffd` and `UffdMsg.child`."""
        return self._number

    @property
    def features(self) -> UffdFeature:
        """The features that were agreed on."""
        return feature_names(self._mm.machine, self._mm._core.uffd_features(self._number))

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._mm._core.uffd_closed(self._number)

    def register(self, start: int, length: int, mode: int | str) -> int:
        """Register a range: its faults are reported here.

        *Models* fs/userfaultfd.c:userfaultfd_register (v6.18).

        Parameters
        ----------
        start, length : int
            Range in bytes, page aligned.
        mode : int or str
            UFFDIO_REGISTER_MODE_* bits or names such as "wp" and "missing|wp".

        Returns
        -------
        int
            The ioctls that the range takes, as a mask of 1 << number.

        Raises
        ------
        KernelError
            EINVAL for a mode, backing or VMA that cannot be registered, EBUSY for a range of
            another userfaultfd, EPERM for a shared mapping that may not be written.
        """
        word = parse(UffdRegisterMode, mode, "mode")
        return self._mm._core.uffd_register(self._number, start, length, word)

    def unregister(self, start: int, length: int) -> None:
        """Undo `register` for a range and wake its faults.

        *Models* fs/userfaultfd.c:userfaultfd_unregister (v6.18). What happens to the entries
        differs by profile.

        Parameters
        ----------
        start, length : int
            Range in bytes, page aligned.

        Raises
        ------
        KernelError
            EINVAL for a range without a VMA that can be registered.
        """
        self._mm._core.uffd_unregister(self._number, start, length)

    def writeprotect_many(
        self,
        ranges: Iterable[tuple[int, int]] | npt.NDArray[np.integer[Any]],
        *,
        protect: bool = True,
        wake: bool = True,
        mode: int | None = None,
        threads: int | None = None,
    ) -> ProtectResult:
        """Write-protect many ranges or resolve them, each as one `writeprotect` would, in order.

        *Models* mm/userfaultfd.c:mwriteprotect_range (v6.18), once a range.

        Parameters
        ----------
        ranges : iterable of (int, int), or ndarray of integers, shape (n, 2)
            Start and length of each in bytes, page aligned.
        protect, wake, mode, threads
            As of `writeprotect`, for all of them.

        Returns
        -------
        ProtectResult
            The sum of what happened; `flush` spans all flushes.

        Raises
        ------
        InvalidArgument
            For another dtype or shape, or negative numbers.
        KernelError
            As `writeprotect`, for the first range that fails; `done` is a
            `ptwalk.ranges.RangesDone`.

        Notes
        -----
        The GIL is released.
        """
        if mode is None:
            mode = (_WRITEPROTECT_WP if protect else 0) | (0 if wake else _WRITEPROTECT_DONTWAKE)
        try:
            return self._mm._core.uffd_writeprotect_many(
                self._number, packed(ranges), mode, threads
            )
        except KernelError as error:
            error.done = RangesDone(*error.done)
            raise

    def copy(
        self,
        dst: int,
        length: int,
        *,
        wp: bool = False,
        wake: bool = True,
        mode: int | None = None,
    ) -> int:
        """Fill missing pages with copies from user memory, whose content is not modelled.

        *Models* mm/userfaultfd.c:mfill_atomic_copy (v6.18).

        Parameters
        ----------
        dst, length : int
            Range to fill, in bytes, page aligned.
        wp : bool
            Whether the pages come in write-protected.
        wake : bool
            Whether the faults that wait are woken.
        mode : int, optional
            The mode word of the ioctl itself.

        Returns
        -------
        int
            Bytes filled.

        Raises
        ------
        KernelError
            EEXIST, ENOENT, EINVAL, EAGAIN as the ioctl; `done` is the bytes filled before it.
        """
        word = _mode(mode, _WP if wp else 0, wake=wake)
        return self._mm._core.uffd_copy(self._number, dst, length, word)

    def zeropage(
        self, start: int, length: int, *, wake: bool = True, mode: int | None = None
    ) -> int:
        """Fill missing pages with zeroes.

        *Models* mm/userfaultfd.c:mfill_atomic_zeropage (v6.18).

        Parameters
        ----------
        start, length : int
            Range in bytes, page aligned.
        wake : bool
            Whether the faults that wait are woken.
        mode : int, optional
            The mode word of the ioctl itself.

        Returns
        -------
        int
            Bytes filled.

        Raises
        ------
        KernelError
            EEXIST, ENOENT, EINVAL, EAGAIN as the ioctl; `done` is the bytes filled before it.
        """
        word = _mode(mode, 0, wake=wake)
        return self._mm._core.uffd_zeropage(self._number, start, length, word)

    def continue_(
        self,
        start: int,
        length: int,
        *,
        wp: bool = False,
        wake: bool = True,
        mode: int | None = None,
    ) -> int:
        """Map pages that are in the page cache already.

        *Models* mm/userfaultfd.c:mfill_atomic_continue (v6.18).

        Parameters
        ----------
        start, length : int
            Range in bytes, page aligned.
        wp : bool
            Whether the pages come in write-protected.
        wake : bool
            Whether the faults that wait are woken.
        mode : int, optional
            The mode word of the ioctl itself.

        Returns
        -------
        int
            Bytes mapped.

        Raises
        ------
        KernelError
            EEXIST, EFAULT, ENOENT, EINVAL, EAGAIN as the ioctl; `done` is the bytes before it.
        """
        word = _mode(mode, _WP if wp else 0, wake=wake)
        return self._mm._core.uffd_continue(self._number, start, length, word)

    def poison(self, start: int, length: int, *, wake: bool = True, mode: int | None = None) -> int:
        """Make missing pages poisoned: accesses then end in SIGBUS.

        *Models* mm/userfaultfd.c:mfill_atomic_poison (v6.18; since v6.6).

        Parameters
        ----------
        start, length : int
            Range in bytes, page aligned.
        wake : bool
            Whether the faults that wait are woken.
        mode : int, optional
            The mode word of the ioctl itself.

        Returns
        -------
        int
            Bytes poisoned.

        Raises
        ------
        KernelError
            EEXIST, ENOENT, EINVAL, EAGAIN as the ioctl; `done` is the bytes before it.
        """
        word = _mode(mode, 0, wake=wake)
        return self._mm._core.uffd_poison(self._number, start, length, word)

    def move(
        self,
        dst: int,
        src: int,
        length: int,
        *,
        wake: bool = True,
        allow_src_holes: bool = False,
        mode: int | None = None,
    ) -> int:
        """Move anonymous pages from one range to another.

        *Models* mm/userfaultfd.c:move_pages (v6.18; since v6.8).

        Parameters
        ----------
        dst, src, length : int
            Target, source and length in bytes, page aligned.
        wake : bool
            Whether the faults that wait are woken.
        allow_src_holes : bool
            Whether none entries of the source are skipped.
        mode : int, optional
            The mode word of the ioctl itself.

        Returns
        -------
        int
            Bytes moved.

        Raises
        ------
        KernelError
            EEXIST, ENOENT, EBUSY, EINVAL, EAGAIN as the ioctl; `done` is the bytes before it.
        """
        word = _mode(mode, _ALLOW_SRC_HOLES if allow_src_holes else 0, wake=wake)
        return self._mm._core.uffd_move(self._number, dst, src, length, word)

    def wake(self, start: int, length: int) -> None:
        """Wake the faults that wait in a range, resolved or not.

        *Models* fs/userfaultfd.c:userfaultfd_wake (v6.18).

        Parameters
        ----------
        start, length : int
            Range in bytes, page aligned.

        Raises
        ------
        KernelError
            EINVAL for a bad range.
        """
        self._mm._core.uffd_wake(self._number, start, length)

    def read(self) -> list[UffdMsg]:
        """Return the messages that wait, oldest first; none are left.

        *Models* fs/userfaultfd.c:userfaultfd_read (v6.18) on a non-blocking descriptor: an empty
        list stands for EAGAIN.

        Returns
        -------
        list of UffdMsg
            Page faults and events. The `child` of a fork event is the number of a new
            userfaultfd: ``Userfaultfd(child_mm, message.child)``.

        Raises
        ------
        KernelError
            EBADF when closed.
        """
        return self._mm._core.uffd_read(self._number)

    def close(self) -> None:
        """Close it: everything registered is unregistered, as the profile's kernel does it.

        *Models* fs/userfaultfd.c:userfaultfd_release (v6.18). Closing twice does nothing.
        """
        self._mm._core.uffd_close(self._number)

    def __enter__(self) -> Self:
        """Return itself; the end of the block closes it."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def __repr__(self) -> str:
        """Return number and state."""
        return f"Userfaultfd({self._number}{', closed' if self.closed else ''})"
