"""Raw stores into an AddressSpace: what no system call judges.

Part of `ptwalk.AddressSpace`. With these a test builds states that the modelled kernel would not
reach by itself. Leaf words are never judged; a table pointer must name a table frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .errors import InvalidArgument
from .files import File
from .flags import Vm, parse
from .space import Space

if TYPE_CHECKING:
    import numpy.typing as npt

    from .pte import U64

_TABLE = 0x67  # _PAGE_TABLE: P RW US A D


class RawStores(Space):
    """Methods that store entries, flags and VMAs as they are given."""

    def entry(self, addr: int, level: str | int = "pte") -> int:
        """Return the entry of one level that maps an address.

        Parameters
        ----------
        addr : int
            Address in bytes.
        level : str or int
            "pgd" … "pte", or 5 … 1.

        Raises
        ------
        InvalidArgument
            For an unknown level, or one that lies below the end of the walk.
        """
        return self._core.entry(addr, level)

    def set_entry(self, addr: int, level: str | int, value: int) -> None:
        """Store the entry of one level that maps an address.

        Parameters
        ----------
        addr : int
            Address in bytes.
        level : str or int
            "pgd" … "pte", or 5 … 1.
        value : int
            The 64-bit word.

        Raises
        ------
        InvalidArgument
            For a level below the end of the walk, or a table pointer that names no table frame.
        """
        self._core.set_entry(addr, level, value)

    def set_pte(self, addr: int, value: int) -> None:
        """Store one PTE; the table must exist (`alloc_table` makes one).

        Raises
        ------
        InvalidArgument
            Where there is no PTE table.
        """
        self._core.set_entry(addr, "pte", value)

    def set_ptes(self, start: int, ptes: U64) -> None:
        """Store the PTEs of neighbouring pages; missing tables are made.

        Parameters
        ----------
        start : int
            Address of the first page in bytes, page aligned.
        ptes : ndarray of uint64, shape (pages,)
            The words; C-contiguous.

        Raises
        ------
        InvalidArgument
            For another dtype or layout, or a range that leaves the address space.
        """
        self._core.set_ptes(start, ptes)

    def alloc_table(self, addr: int, level: str | int, flags: int = _TABLE) -> None:
        """Put an empty table into a none entry.

        Parameters
        ----------
        addr : int
            Address in bytes that the entry maps.
        level : str or int
            Level of the entry: "pmd" makes a PTE table.
        flags : int
            Flag bits of the table entry.

        Raises
        ------
        InvalidArgument
            For an entry that is not none, or the level "pte".
        """
        self._core.alloc_table(addr, level, flags)

    def set_vm_flags(
        self, start: int, length: int, *, add: int | str = 0, remove: int | str = 0
    ) -> None:
        """Set and clear flags of the VMAs of a range, which is split off.

        Parameters
        ----------
        start, length : int
            Range in bytes, page aligned.
        add, remove : int or str
            VM_* bits or names such as "uffd_wp".

        Raises
        ------
        InvalidArgument
            For an unaligned range or a hole.
        """
        self._core.set_vm_flags(start, length, parse(Vm, add, "add"), parse(Vm, remove, "remove"))

    def load_vma(
        self,
        start: int,
        end: int,
        vm_flags: int | str,
        *,
        kind: str,
        file: File | None = None,
        offset: int = 0,
        name: str = "",
    ) -> None:
        """Insert a VMA as it stands, for address spaces that are read from elsewhere.

        Parameters
        ----------
        start, end : int
            Range in bytes, page aligned.
        vm_flags : int or str
            VM_* bits or names.
        kind : {"anon", "shmem", "regular", "hugetlb", "dax", "other"}
            Its backing.
        file : File, optional
            What it maps.
        offset : int
            Where in the file the range starts, in bytes.
        name : str
            Name or path.

        Raises
        ------
        InvalidArgument
            For an unaligned range, one that leaves the address space or meets another VMA.
        """
        if offset % 4096:
            raise InvalidArgument(
                f"offset {offset:#x} is not page aligned (4096); use ptwalk.page_align_down"
            )
        number = -1 if file is None else file._attach(self.machine)
        pgoff = start >> 12 if file is None else offset >> 12
        self._core.load_vma(start, end, parse(Vm, vm_flags, "vm_flags"), pgoff, number, kind, name)

    def load_pages(self, start: int, ptes: U64, facts: npt.NDArray[np.uint8]) -> None:
        """Store entries together with the facts of their pages.

        Parameters
        ----------
        start : int
            Address of the first page in bytes, page aligned.
        ptes : ndarray of uint64, shape (pages,)
            The words; a present one with pfn field 0 asks for a frame, the file's or a new one,
            and a frame that the machine uses otherwise is replaced so. 0 leaves an entry alone.
        facts : ndarray of uint8, shape (pages,)
            Sum of 1 (anonymous), 2 (of the VMA's file), 4 (exclusive), 8 (dirty), 16 (the zero
            page), 32 (mapped elsewhere too, by what the machine does not hold).

        Raises
        ------
        InvalidArgument
            For another dtype or length, or a range that leaves the address space.
        """
        self._core.load_pages(start, ptes, facts)

    def fail_table_alloc(self, n: int) -> None:
        """Make one allocation of a page table fail, to see what the kernel makes of it.

        Parameters
        ----------
        n : int
            The n-th allocation from now on fails, 1 being the next; 0 takes it back.
        """
        self._core.fail_table_alloc(n)
