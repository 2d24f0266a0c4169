"""Machine: one kernel with its physical memory, files and swap, and the address spaces on it.

A machine runs one profile under one configuration. Address spaces of one machine share page cache,
swap and reverse map and take turns (one lock); different machines run in parallel.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING

from . import _core
from .errors import InvalidArgument

if TYPE_CHECKING:
    from .files import File
    from .userfaultfd import Userfaultfd

DEFAULT_PROFILE = "uffd-wp-v2"


def profiles() -> tuple[str, ...]:
    """Return the names of all profiles, oldest kernel first."""
    return _core.profiles()


def kernels() -> tuple[str, ...]:
    """Return the names of the leaf kernels that this processor can run, slowest first.

    The last one is used; all give the same results as the first, "scalar".
    """
    return _core.kernels()


def trim() -> int:
    """Return the memory that table frames of machines long gone still hold to the system.

    Up to 512 MiB of it is kept, for the next machine: fresh memory is dear.

    Returns
    -------
    int
        Bytes returned.
    """
    return _core.trim()


class Checkpoint:
    """A state of a machine that `Machine.restore` goes back to; `Machine.checkpoint` makes it."""

    def __init__(self, machine: Machine) -> None:
        self._core = _core.Checkpoint(machine._core)


class Machine:
    """One kernel: a profile, physical memory, files, swap and any number of address spaces.

    Parameters
    ----------
    profile : str, optional
        Which kernel's rules apply, one of `ptwalk.profiles`; default "uffd-wp-v2".
    levels : {4, 5}
        Paging levels.
    config : mapping of str to bool, optional
        Build options that differ from the profile's default, without ``CONFIG_``, such as
        ``{"MEM_SOFT_DIRTY": True}``.
    max_tables : int, optional
        How many page-table frames (4 KiB each) may be in use at once; default 64 GiB of them, less
        under RLIMIT_AS. Tables that share one frame count once.

    Raises
    ------
    InvalidArgument
        For an unknown profile or option, a value that is no bool, another number of levels, or a
        `max_tables` out of range.

    Notes
    -----
    A call that may need more frames than the limit leaves raises KernelError (ENOMEM) and changes
    nothing; one that goes page by page, as populating does, stops there and says how far it got.
    Copies of shared tables that freeing memory needs are always made.

    Calls on one machine are serialised by its lock; the GIL is released while waiting for it.
    """

    def __init__(
        self,
        profile: str | None = None,
        *,
        levels: int = 4,
        config: Mapping[str, bool] | None = None,
        max_tables: int | None = None,
    ) -> None:
        name = DEFAULT_PROFILE if profile is None else profile
        if not isinstance(name, str):
            raise InvalidArgument(f"profile {name!r} is not a name; use one of {profiles()}")
        if config is not None and not isinstance(config, Mapping):
            raise InvalidArgument(f"config {config!r} is not a mapping; pass {{option: bool}}")
        self._core = _core.Machine(name, dict(config or {}), levels, max_tables)
        self._files: dict[int, File] = {}
        self._uffds: weakref.WeakSet[Userfaultfd] = weakref.WeakSet()

    @property
    def profile(self) -> str:
        """Name of the profile."""
        return self._core.profile

    @property
    def kernel(self) -> str:
        """The tree or release that the profile models."""
        return self._core.kernel

    @property
    def levels(self) -> int:
        """Paging levels, 4 or 5."""
        return self._core.levels

    @property
    def config(self) -> dict[str, bool]:
        """The build options in force."""
        return self._core.config

    @property
    def threads(self) -> int:
        """How many threads one call may use; at first, the processors that the process may use.

        Changes of protection over 512 MiB and more, `AddressSpace.ptes` and
        `AddressSpace.translate` use them where it pays; their `threads=` overrides it for one call.
        Results are those of one thread.
        """
        return self._core.threads

    @threads.setter
    def threads(self, threads: int) -> None:
        self._core.threads = threads

    @property
    def max_tables(self) -> int:
        """How many page-table frames may be in use at once."""
        return self._core.max_tables

    def trim(self) -> int:
        """Return the memory of table frames that are free now to the system.

        They are kept warm otherwise, for fresh memory is dear. See also `ptwalk.trim`.

        Returns
        -------
        int
            Bytes returned.
        """
        return self._core.trim()

    def checkpoint(self) -> Checkpoint:
        """Remember the state of now: tables, pages, VMAs, page cache, swap, userfaultfds.

        Nothing is copied; from now on what changes is saved first, until the checkpoint is dropped.
        Address spaces that live now are kept alive by it.

        Returns
        -------
        Checkpoint
            For `restore`, as often as wanted.
        """
        return Checkpoint(self)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to the state of a checkpoint, at a cost of what was touched since.

        Address spaces and userfaultfds made since are gone: using one is an error. Files made since
        belong to no machine again. Checkpoints made since are void.

        Parameters
        ----------
        checkpoint : Checkpoint
            One of this machine.

        Raises
        ------
        InvalidArgument
            For anything else, and for a checkpoint that is void.

        Notes
        -----
        The log grows with what is touched, not with how often; a restore empties it.
        """
        if not isinstance(checkpoint, Checkpoint):
            raise InvalidArgument(
                f"checkpoint {checkpoint!r} is no Checkpoint; make one with checkpoint()"
            )
        files, uffds = _core.restore(self._core, checkpoint._core)
        for number in [n for n in self._files if n >= files]:
            self._files.pop(number)._unbind()
        for uffd in [u for u in self._uffds if u.number >= uffds]:
            uffd._gone()

    def _file(self, number: int) -> File | None:
        """Return the object of a file by its number; None for -1, no file."""
        if number < 0:
            return None
        if number not in self._files:
            from .files import attached_file

            attached_file(self, number)
        return self._files[number]

    def __repr__(self) -> str:
        """Return the call that makes such a machine."""
        return f"Machine({self.profile!r}, levels={self.levels})"
