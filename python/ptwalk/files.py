"""Files that can be mapped: shmem, regular and hugetlb.

Models the page cache of a file as far as page faults look at it (mm/shmem.c, mm/filemap.c, v6.18):
which pages are cached, not what they contain. A file belongs to the machine of its first mmap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from . import _core
from .errors import InvalidArgument

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from .machine import Machine


class File:
    """What `ShmemFile`, `RegularFile` and `HugetlbFile` have in common.

    Parameters
    ----------
    size : int
        Length in bytes.
    machine : Machine, optional
        The machine that the file belongs to; by default that of its first mmap.
    writable : bool
        Whether it was opened for writing; a shared mapping of a read-only file cannot become
        writable.

    Raises
    ------
    InvalidArgument
        For a size that is no int from 0 to 2**63 - 1.
    """

    _kind: ClassVar[str]

    def __init__(self, size: int, *, machine: Machine | None = None, writable: bool = True) -> None:
        self._size = _core.file_size(size)
        self._writable = writable
        self._machine: Machine | None = None
        self._number = -1
        if machine is not None:
            self._attach(machine)

    def _attach(self, machine: Machine) -> int:
        """Make the file known to `machine` unless it is; return its number there."""
        if self._machine is None:
            number = machine._core.create_file(self._kind, self._size, self._writable)
            self._bind(machine, number)
        if self._machine is not machine:
            raise InvalidArgument(
                f"{self!r} belongs to another machine, that of its first mmap; "
                "make a file for each machine or share one machine= between the address spaces"
            )
        return self._number

    def _bind(self, machine: Machine, number: int) -> None:
        self._machine, self._number = machine, number
        machine._files[number] = self

    def _unbind(self) -> None:
        """Belong to no machine again: the checkpoint that was restored does not know the file."""
        self._machine, self._number = None, -1

    def _owner(self, call: str) -> Machine:
        if self._machine is None:
            raise InvalidArgument(
                f"{call}: {self!r} has no machine yet, so no page cache; "
                f"map it first or make it with {type(self).__name__}(size, machine=…)"
            )
        return self._machine

    @property
    def size(self) -> int:
        """Length in bytes."""
        if self._machine is None:
            return self._size
        return self._machine._core.file_info(self._number)[1]

    @property
    def writable(self) -> bool:
        """Whether the file was opened for writing."""
        return self._writable

    @property
    def machine(self) -> Machine | None:
        """The machine that the file belongs to, None before its first mmap."""
        return self._machine

    @property
    def cached_pages(self) -> npt.NDArray[np.uint64]:
        """Indices of the pages in the page cache: uint64, shape (n,), ascending."""
        return self._owner("cached_pages")._core.file_cached_pages(self._number)

    def read(self, offset: int, length: int) -> None:
        """Read as read(2) would: pages come into the page cache, from swap too.

        *Models* mm/shmem.c:shmem_file_read_iter and mm/filemap.c:filemap_read (v6.18): a hole of
        shmem stays a hole; nothing is read ahead.

        Parameters
        ----------
        offset, length : int
            Range in bytes; what lies beyond the end of the file is not read.

        Raises
        ------
        InvalidArgument
            If the file has no machine yet, or for a range that ends beyond 2**63 - 1.
        """
        self._owner("read")._core.file_read(self._number, offset, length)

    def write(self, offset: int, length: int) -> None:
        """Write as write(2) would: pages come into the page cache and become dirty.

        *Models* mm/filemap.c:generic_perform_write (v6.18). A write beyond the end extends the
        file.

        Parameters
        ----------
        offset, length : int
            Range in bytes.

        Raises
        ------
        InvalidArgument
            If the file has no machine yet, or for a range that ends beyond 2**63 - 1.
        """
        self._owner("write")._core.file_write(self._number, offset, length)

    def truncate(self, size: int) -> None:
        """Set the length as ftruncate(2) does; pages beyond leave all mappings.

        *Models* mm/truncate.c:truncate_pagecache and mm/shmem.c:shmem_setattr (v6.18).

        Parameters
        ----------
        size : int
            New length in bytes.

        Raises
        ------
        InvalidArgument
            If the file has no machine yet, or for a size beyond 2**63 - 1.
        """
        self._owner("truncate")._core.file_truncate(self._number, size)

    def punch_hole(self, offset: int, length: int) -> None:
        """Make a hole as fallocate(PUNCH_HOLE) does; whole pages leave all mappings.

        *Models* mm/shmem.c:shmem_fallocate (v6.18).

        Parameters
        ----------
        offset, length : int
            Range in bytes.

        Raises
        ------
        InvalidArgument
            If the file has no machine yet, or for a range that ends beyond 2**63 - 1.
        """
        self._owner("punch_hole")._core.file_punch_hole(self._number, offset, length)

    def __repr__(self) -> str:
        """Return class and size."""
        return f"{type(self).__name__}({self.size:#x})"


class ShmemFile(File):
    """A memfd or a file of tmpfs: its pages live in the page cache and in swap."""

    _kind = "shmem"


class RegularFile(File):
    """A file of a disk file system: writes are noted (page_mkwrite), clean pages can be dropped."""

    _kind = "regular"


class HugetlbFile(File):
    """A file of hugetlbfs; mapping one is refused, hugetlb page tables are not modelled."""

    _kind = "hugetlb"

    def _attach(self, machine: Machine) -> int:
        raise InvalidArgument(
            f"{self!r} cannot be mapped on {machine!r}: hugetlb is not modelled; use a ShmemFile"
        )


def attached_file(machine: Machine, number: int) -> File:
    """Return an object for a file that the core made, such as that of shared anonymous memory."""
    kind, size, writable = machine._core.file_info(number)
    file = (RegularFile if kind == "regular" else ShmemFile)(size, writable=writable)
    file._bind(machine, number)
    return file
