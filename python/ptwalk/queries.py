"""What an AddressSpace shows of itself: entries, walks, VMAs, counts.

Part of `ptwalk.AddressSpace`. Nothing here changes the address space; arrays are copies but for
`tables`.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import _core
from .errors import InvalidArgument, KernelError
from .flags import PageIs, PmScan, parse
from .space import Space
from .vma import Vma, vma_from_core

if TYPE_CHECKING:
    import numpy.typing as npt

    from ._core import PendingFault

    U64 = npt.NDArray[np.uint64]

_MARKER_GUARD = 4  # PTE_MARKER_GUARD


class Stats(NamedTuple):
    """Sizes of an address space and its machine.

    Attributes
    ----------
    tables_modelled : int
        Page tables that the kernel would have allocated, the PGD included.
    tables_resident : int
        Table frames that the whole machine really uses.
    pages : int
        Page frames in use on the machine.
    vmas : int
        VMAs of the address space.
    pending : int
        Faults that wait for a userfaultfd.
    """

    tables_modelled: int
    tables_resident: int
    pages: int
    vmas: int
    pending: int


class ScanResult(NamedTuple):
    """What PAGEMAP_SCAN found.

    Attributes
    ----------
    ranges : tuple of (int, int, PageIs)
        Start and end in bytes, and categories, of neighbouring pages with equal categories.
    walk_end : int
        Where the scan ended, in bytes.
    """

    ranges: tuple[tuple[int, int, PageIs], ...]
    walk_end: int


def _scan_result(found: tuple[list[tuple[int, int, int]], int]) -> ScanResult:
    ranges, walk_end = found
    return ScanResult(tuple((start, end, PageIs(bits)) for start, end, bits in ranges), walk_end)


def _addresses(addrs: Iterable[int] | npt.NDArray[Any]) -> U64:
    """Return addresses as a packed uint64 array; refuse what would lose bits."""
    if not isinstance(addrs, np.ndarray):
        try:
            return np.array([operator.index(addr) for addr in addrs], np.uint64)
        except (OverflowError, TypeError) as error:
            raise InvalidArgument(
                f"addrs holds no addresses ({error}); pass ints from 0 to 2**64 - 1"
            ) from None
    if addrs.ndim != 1 or addrs.dtype.kind not in "iu" or (addrs < 0).any():
        raise InvalidArgument(
            f"addrs has dtype {addrs.dtype} and shape {addrs.shape}; pass one dimension of "
            "integers from 0 to 2**64 - 1"
        )
    return np.ascontiguousarray(addrs, np.uint64)


class Queries(Space):
    """Methods that read an address space."""

    @property
    def profile(self) -> str:
        """Name of the profile whose rules apply."""
        return self.machine.profile

    @property
    def config(self) -> dict[str, bool]:
        """Build options of the modelled kernel."""
        return self.machine.config

    @property
    def vmas(self) -> list[Vma]:
        """The VMAs by address."""
        return [vma_from_core(self.machine, fields) for fields in self._core.vmas()]

    @property
    def stats(self) -> Stats:
        """Sizes, at this moment."""
        return Stats(**self._core.stats())

    @property
    def pending(self) -> list[PendingFault]:
        """The faults that wait in handle_userfault(), by address."""
        return self._core.pending()

    @property
    def cr3(self) -> int:
        """Physical address of the root table, as in CR3."""
        return self._core.root << 12

    @property
    def table_base(self) -> int:
        """Pfn of row 0 of `tables`."""
        return self._core.table_base

    def ptes(
        self, start: int, length: int, *, out: U64 | None = None, threads: int | None = None
    ) -> U64:
        """Return the raw page-table entries of a range.

        Parameters
        ----------
        start, length : int
            Range in bytes, page aligned.
        out : ndarray of uint64, shape (pages,), optional
            Where to put them; writeable and C-contiguous.
        threads : int, optional
            How many threads may work on it; default `Machine.threads`. Results do not depend on it.

        Returns
        -------
        ndarray of uint64, shape (pages,)
            The entries; 0 where no PTE table exists. For a page below a huge leaf, the leaf.

        Raises
        ------
        InvalidArgument
            For an unaligned range, one that leaves the address space, or an unfit `out`.

        Notes
        -----
        The GIL is released for ranges above 16 MiB.
        """
        return self._core.ptes(start, length, out, threads)

    def levels(self, start: int, length: int) -> npt.NDArray[np.uint8]:
        """Return the level at which the walk of each page ends.

        Parameters
        ----------
        start, length : int
            Range in bytes, page aligned.

        Returns
        -------
        ndarray of uint8, shape (pages,)
            1 where a PTE table exists, 2 for a PMD entry that is none or a leaf, and so on.

        Raises
        ------
        InvalidArgument
            For an unaligned range or one that leaves the address space.
        """
        return self._core.levels(start, length)

    def pages(self, start: int, length: int) -> npt.NDArray[np.void]:
        """Return the facts about the page frames that a range maps.

        Parameters
        ----------
        start, length : int
            Range in bytes, page aligned.

        Returns
        -------
        structured ndarray, shape (pages,)
            `pfn`, `serial` (identity of the page, never used again), `index` (page offset in its
            file, linear address >> 12 when anonymous), `file` (number, -1 for none), `mapcount`,
            `flags` (PG_* of cpp/include/ptwalk/page.hpp), `level` of the walk's end, folio
            `order`. All but `level` are 0 (`file` -1) where no page is mapped; a frame without
            facts has `pfn` alone.

        Raises
        ------
        InvalidArgument
            For an unaligned range or one that leaves the address space.
        """
        return self._core.pages(start, length)

    def translate(
        self,
        addrs: Iterable[int] | npt.NDArray[Any],
        *,
        out: U64 | None = None,
        threads: int | None = None,
    ) -> U64:
        """Translate addresses; a PROT_NONE page has its frame too, as to the kernel.

        Parameters
        ----------
        addrs : iterable of int, or ndarray of integers, shape (n,)
            Addresses in bytes.
        out : ndarray of uint64, shape (n,), optional
            Where to put them; writeable and C-contiguous. It may be `addrs` itself.
        threads : int, optional
            How many threads may work on it; default `Machine.threads`. Results do not depend on it.

        Returns
        -------
        ndarray of uint64, shape (n,)
            Physical addresses; 2**64 - 1 where nothing is present.

        Raises
        ------
        InvalidArgument
            For another dtype or shape, negative addresses, or an unfit `out`.
        """
        return self._core.translate(_addresses(addrs), out, threads)

    def tables(self, *, copy: bool = False) -> U64:
        """Return all table frames of the machine: an image that any x86-64 walker can follow.

        Parameters
        ----------
        copy : bool
            Whether to copy them; a view is valid until the next change.

        Returns
        -------
        ndarray of uint64, shape (frames, 512)
            Row i is the frame with pfn `table_base` + i; the root is at `cr3`. Read-only unless
            copied. Rows of freed frames are stale.
        """
        return self._core.tables(copy)

    def count(self, start: int, length: int) -> dict[str, int]:
        """Count the pages of a range by what their walk ends at, without making an array.

        Parameters
        ----------
        start, length : int
            Range in bytes, page aligned.

        Returns
        -------
        dict of str to int
            Pages by name of kind; kinds that do not occur are left out.

        Raises
        ------
        InvalidArgument
            For an unaligned range or one that leaves the address space.
        """
        return self._core.count(start, length)

    def pagemap(self, start: int, length: int) -> U64:
        """Return what /proc/PID/pagemap would show to a privileged reader.

        *Models* fs/proc/task_mmu.c:pagemap_read (v6.18).

        Parameters
        ----------
        start, length : int
            Range in bytes, page aligned.

        Returns
        -------
        ndarray of uint64, shape (pages,)

        Raises
        ------
        InvalidArgument
            For an unaligned range or one that leaves the address space.
        """
        return self._core.pagemap(start, length)

    def pagemap_scan(  # noqa: PLR0913 -- the fields of struct pm_scan_arg
        self,
        start: int,
        length: int,
        *,
        flags: int | str = 0,
        inverted: int | str = 0,
        mask: int | str = 0,
        anyof: int | str = 0,
        returned: int | str | None = None,
        max_pages: int = 0,
        vec_len: int = 0,
    ) -> ScanResult:
        """Scan a range for pages of some categories, and write-protect them if asked.

        *Models* fs/proc/task_mmu.c:do_pagemap_scan (v6.18; since v6.7).

        Parameters
        ----------
        start, length : int
            Range in bytes, page aligned.
        flags : int or str
            PM_SCAN_* bits or names.
        inverted, mask, anyof, returned : int or str
            Category masks of PAGE_IS_* bits or names, as in struct pm_scan_arg; all are returned
            by default.
        max_pages, vec_len : int
            Limits on pages and ranges; 0 for none.

        Returns
        -------
        ScanResult

        Raises
        ------
        KernelError
            EINVAL, EPERM and others as the ioctl; `done` is the result so far.
        """
        words = [
            parse(PmScan, flags, "flags"),
            parse(PageIs, inverted, "inverted"),
            parse(PageIs, mask, "mask"),
            parse(PageIs, anyof, "anyof"),
            self._categories() if returned is None else parse(PageIs, returned, "returned"),
        ]
        try:
            found = self._core.pagemap_scan(start, length, [*words, max_pages, vec_len])
        except KernelError as error:
            if error.done is not None:
                error.done = _scan_result(error.done)
            raise
        return _scan_result(found)

    def _categories(self) -> int:
        """Return the categories that this kernel reports: GUARD where it has guard markers."""
        info = _core.profile_info(self.machine.profile, self.machine.config)
        guard = bool(info["marker_mask"] & _MARKER_GUARD)
        return sum(category for category in PageIs if guard or category is not PageIs.GUARD)

    def validate(self) -> list[str]:
        """Return every invariant that does not hold, in words; empty when all do."""
        return self._core.validate()
