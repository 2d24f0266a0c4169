"""What happens to many pages of an AddressSpace at once: batched accesses, reclaim, migration.

Part of `ptwalk.AddressSpace`. Reclaim and migration find every mapping of a page, in every address
space of the machine, as the kernel's reverse map does.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Self

import numpy as np

from .errors import InvalidArgument
from .space import Space

if TYPE_CHECKING:
    import numpy.typing as npt


class Outcome(enum.IntEnum):
    """What an access came to, as `access_many` codes it; names as `AccessResult.outcome`."""

    DONE = 0
    BLOCKED = 1
    SIGNAL = 2


class Migration:
    """Pages between the two phases of a migration: their entries are migration entries.

    Attributes
    ----------
    pfns : tuple of int
        The old frames.

    Notes
    -----
    As a context manager it finishes on leaving. Whoever touches such a page meanwhile is blocked
    without a message; mprotect, wr-protect, fork, zap and mremap see the migration entries.
    """

    def __init__(self, space: Space, pages: list[tuple[int, int]]) -> None:
        self._space = space
        self._pages = pages
        self.pfns = tuple(pfn for pfn, _ in pages)

    def finish(self) -> tuple[int, ...]:
        """Map the new frames in place of the migration entries and return them.

        *Models* mm/migrate.c:remove_migration_ptes (v6.18). A page that was unmapped everywhere
        in between has no new frame: 0 stands for it. A second call does nothing.
        """
        pages, self._pages = self._pages, []
        return tuple(self._space._core.migrate_finish(pages))

    def __enter__(self) -> Self:
        """Return the migration itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Finish."""
        self.finish()

    def __repr__(self) -> str:
        """Return how many pages are under way."""
        return f"Migration({len(self._pages)} of {len(self.pfns)} pages under way)"


class Pages(Space):
    """Methods on many pages at once."""

    def access_many(
        self, addrs: npt.ArrayLike, *, write: bool | npt.ArrayLike
    ) -> npt.NDArray[np.void]:
        """Access many addresses one after another, each as `access` does.

        *Models* mm/memory.c:handle_mm_fault (v6.18).

        Parameters
        ----------
        addrs : array_like of uint64, shape (n,)
            Addresses in bytes.
        write : bool or array_like of bool, shape (n,)
            Which of them are stores.

        Returns
        -------
        ndarray, shape (n,)
            Fields before and after (uint64, the entries), outcome (uint8, see `Outcome`), signo
            and code (uint8). Messages wait in their userfaultfds.

        Raises
        ------
        InvalidArgument
            For addresses that are no integers, lengths that differ, or an address outside user
            memory; the accesses before it were made.
        """
        at = np.asarray(addrs)
        if at.ndim != 1 or (at.size and at.dtype.kind not in "ui"):
            raise InvalidArgument(
                f"addrs has dtype {at.dtype} and shape {at.shape}; pass one dimension of uint64"
            )
        if at.dtype.kind == "i" and at.size and int(at.min()) < 0:
            raise InvalidArgument(f"addrs holds {int(at.min())}; addresses are not negative")
        stores = np.asarray(write, dtype=bool)
        if stores.ndim and stores.shape != at.shape:
            raise InvalidArgument(
                f"write has shape {stores.shape} but addrs {at.shape}; give one bool or as many"
            )
        return self._core.access_many(
            np.ascontiguousarray(at, dtype=np.uint64),
            np.ascontiguousarray(np.broadcast_to(stores, at.shape), dtype=np.uint8),
        )

    def reclaim(self, start: int, length: int) -> int:
        """Take the pages that a range maps out of every mapping, as memory pressure would.

        *Models* mm/vmscan.c:shrink_folio_list and mm/rmap.c:try_to_unmap (v6.18): anonymous and
        shmem pages go to swap, clean MADV_FREE pages and pages of other files are dropped. An
        armed file entry leaves its marker. Unlike MADV_PAGEOUT it takes shared pages too.

        Parameters
        ----------
        start, length : int
            Range in bytes.

        Returns
        -------
        int
            Pages taken.

        Raises
        ------
        InvalidArgument
            For an unaligned range or one that leaves user memory.
        """
        return self._core.reclaim(start, length)

    def migrate_pages(self, start: int, length: int) -> Migration:
        """Begin to migrate the pages that a range maps; `Migration.finish` ends it.

        *Models* mm/rmap.c:try_to_migrate (v6.18): every entry that maps one of the pages becomes a
        migration entry, in every address space of the machine.

        Parameters
        ----------
        start, length : int
            Range in bytes.

        Raises
        ------
        InvalidArgument
            For an unaligned range or one that leaves user memory.

        Examples
        --------
        >>> with mm.migrate_pages(vma.start, vma.length):
        ...     mm.mprotect(vma.start, vma.length, "r--")
        """
        return Migration(self, self._core.migrate_start(start, length))
