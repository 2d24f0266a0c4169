"""AddressSpace: VMAs, page tables and the system calls on them, under one kernel's rules.

Models struct mm_struct and what mm/ does with it, by profile v5.12 to v6.18. System calls are in
system_calls.py, reading in queries.py, many pages at once in pages.py, raw stores in raw.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from . import _core
from .errors import InvalidArgument
from .machine import Checkpoint, Machine
from .pages import Pages
from .queries import Queries
from .raw import RawStores
from .system_calls import SystemCalls

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from .dump import Walk
    from .pte import U64


class AddressSpace(SystemCalls, Pages, Queries, RawStores):
    """The address space of one process.

    Parameters
    ----------
    profile : str, optional
        Which kernel's rules apply, one of `ptwalk.profiles`; default "uffd-wp-v2".
    levels : {4, 5}, optional
        Paging levels; default 4.
    config : mapping of str to bool, optional
        Build options that differ from the profile's default.
    machine : Machine, optional
        Where it lives; by default on a machine of its own. The options above are then the
        machine's.

    Attributes
    ----------
    machine : Machine
        The kernel and memory that it lives on.

    Raises
    ------
    InvalidArgument
        For an unknown profile or option, or one that differs from the machine's.

    Notes
    -----
    Methods may be called from many threads; calls on one machine are serialised.

    Examples
    --------
    >>> mm = ptwalk.AddressSpace("6.18")
    >>> vma = mm.mmap(None, 4096, "rw-")
    >>> mm.access(vma.start, write=True)
    AccessResult(done)
    """

    def __init__(
        self,
        profile: str | None = None,
        *,
        levels: int | None = None,
        config: Mapping[str, bool] | None = None,
        machine: Machine | None = None,
    ) -> None:
        if machine is None:
            machine = Machine(profile, levels=4 if levels is None else levels, config=config)
        elif not isinstance(machine, Machine):
            raise InvalidArgument(f"machine {machine!r} is no Machine; make one with Machine()")
        else:
            self._agree(machine, profile, levels, config)
        self._adopt(machine, _core.AddressSpace(machine._core))

    @staticmethod
    def _agree(
        machine: Machine,
        profile: str | None,
        levels: int | None,
        config: Mapping[str, bool] | None,
    ) -> None:
        """Refuse options that differ from those of the machine."""
        wanted = {"profile": profile, "levels": levels, "config": config}
        have = {"profile": machine.profile, "levels": machine.levels, "config": machine.config}
        for name, value in wanted.items():
            if value is not None and value != have[name]:
                raise InvalidArgument(
                    f"{name} {value!r} differs from the machine's, {have[name]!r}; leave it out"
                )

    def checkpoint(self) -> Checkpoint:
        """Remember the state of the whole machine; see `Machine.checkpoint`.

        Examples
        --------
        >>> mm = ptwalk.AddressSpace("6.18")
        >>> vma = mm.mmap(None, 4096, "rw-")
        >>> cp = mm.checkpoint()
        >>> mm.access(vma.start, write=True).outcome, mm.count(vma.start, 4096)
        ('done', {'present': 1})
        >>> mm.restore(cp)
        >>> mm.count(vma.start, 4096)
        {'none': 1}
        """
        return self.machine.checkpoint()

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take the whole machine back to a checkpoint; see `Machine.restore`."""
        self.machine.restore(checkpoint)

    def walk(self, addr: int) -> Walk:
        """Walk to an address and return the entry of each level.

        Parameters
        ----------
        addr : int
            Address in bytes.

        Returns
        -------
        Walk
            A sequence of (level, index, entry, kind) from the top, with `stopped`.

        Raises
        ------
        InvalidArgument
            For an address beyond user space.
        """
        from .dump import Walk

        return Walk(self, addr)

    def decode(self, ptes: U64, *, level: str | int = "pte") -> npt.NDArray[np.void]:
        """Say what entries mean under this profile; see `ptwalk.decode`."""
        from .pte import decode

        return decode(ptes, profile=self.profile, level=level, config=self.config)

    def ptdump(self, start: int, length: int) -> str:
        """Return a listing of the entries of a range; see `ptwalk.dump.ptdump`."""
        from .dump import ptdump

        return ptdump(self, start, length)

    def __repr__(self) -> str:
        """Return profile, VMAs and tables."""
        stats = self.stats
        return (
            f"AddressSpace({self.profile!r}, levels={self.machine.levels}, "
            f"vmas={stats.vmas}, tables={stats.tables_modelled})"
        )
