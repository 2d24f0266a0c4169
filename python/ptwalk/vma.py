"""Vma: one mapping of an address space, as a value.

Models the fields of struct vm_area_struct that /proc/PID/maps and smaps show, and vm_page_prot
(include/linux/mm_types.h, v6.18). A Vma does not follow later changes of its address space.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, NamedTuple

from .flags import Map, Prot, Vm

if TYPE_CHECKING:
    from .files import File
    from .machine import Machine

PAGE_SIZE = 4096
CoreVma = tuple[int, int, int, int, int, int, int, str, str]
_NAME_WIDTH = 17  # of str(), so that what follows on a line is aligned


class Vma(NamedTuple):
    """One contiguous range with one backing and one set of flags.

    Attributes
    ----------
    start, end : int
        Half-open range in bytes, page aligned.
    vm_flags : Vm
        Flags of the VMA.
    page_prot : int
        The protection word of its entries (vm_page_prot), write-notify applied; what
        `AddressSpace.change_protection` wants as `newprot`.
    file : File or None
        What is mapped; None for private anonymous memory.
    offset : int
        Where in the file the range starts, in bytes; 0 for anonymous memory.
    name : str
        Name or path, "" for none.
    kind : str
        "anon", "shmem", "regular", "hugetlb", "dax" or "other".
    uffd : int or None
        Number of the userfaultfd that it is registered with.
    """

    start: int
    end: int
    vm_flags: Vm
    page_prot: int
    file: File | None
    offset: int
    name: str
    kind: str
    uffd: int | None

    @property
    def length(self) -> int:
        """Length in bytes."""
        return self.end - self.start

    @property
    def prot(self) -> Prot:
        """PROT_READ, PROT_WRITE and PROT_EXEC as the flags say."""
        return Prot(self.vm_flags & (Vm.READ | Vm.WRITE | Vm.EXEC))

    @property
    def flags(self) -> Map:
        """MAP_SHARED or MAP_PRIVATE, with MAP_ANONYMOUS, MAP_LOCKED, MAP_NORESERVE."""
        flags = Map.SHARED if self.vm_flags & Vm.MAYSHARE else Map.PRIVATE
        if self.file is None and self.kind == "anon":
            flags |= Map.ANONYMOUS
        if self.vm_flags & Vm.LOCKED:
            flags |= Map.LOCKED
        if self.vm_flags & Vm.NORESERVE:
            flags |= Map.NORESERVE
        return flags

    @property
    def permissions(self) -> str:
        """Four letters as in /proc/PID/maps, such as "rw-s"."""
        pairs = ((Vm.READ, "r"), (Vm.WRITE, "w"), (Vm.EXEC, "x"))
        letters = "".join(letter if self.vm_flags & flag else "-" for flag, letter in pairs)
        return letters + ("s" if self.vm_flags & Vm.MAYSHARE else "p")

    def __str__(self) -> str:
        """Return a line as in /proc/PID/maps: range, permissions, offset, last part of the name."""
        name = self.name.rpartition("/")[2]
        return (
            f"{self.start:#018x}-{self.end:#018x} {self.permissions} {self.offset:08x} "
            f"{name:{_NAME_WIDTH}}"
        )

    def __repr__(self) -> str:
        """Return range, permissions and backing."""
        return f"Vma({self.start:#018x}-{self.end:#018x} {self.permissions} {self.kind})"


def vma_from_core(machine: Machine, fields: CoreVma) -> Vma:
    """Return the value for the fields of the core's VMA."""
    start, end, vm_flags, page_prot, pgoff, number, uffd, kind, name = fields
    return Vma(
        start=start,
        end=end,
        vm_flags=Vm(vm_flags),
        page_prot=page_prot,
        file=machine._file(number),
        offset=0 if number < 0 else pgoff << 12,
        name=name,
        kind=kind,
        uffd=None if uffd < 0 else uffd,
    )


def page_align_down(addr: int) -> int:
    """Return the start of the page that holds `addr`."""
    return operator.index(addr) & -PAGE_SIZE  # numpy's uint64 has no negative mask


def page_align(addr: int) -> int:
    """Return `addr` rounded up to a page, as the kernel's PAGE_ALIGN does."""
    return page_align_down(operator.index(addr) + PAGE_SIZE - 1)


def part_of(vma: Vma, start: int, length: int) -> Vma:
    """Return the part of `vma` from `start` on that `length` bytes touch."""
    offset = 0 if vma.file is None else vma.offset + start - vma.start
    return vma._replace(start=start, end=min(vma.end, page_align(start + length)), offset=offset)
