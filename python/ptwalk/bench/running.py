"""The running kernel as a contender: the same requests on memory of this process.

It does more than ptwalk: locks, reverse maps, folio lookups and TLB flushes, and in a virtual
machine stores to page tables may trap. So its figures say what a user would wait, not who loops
faster.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .. import running_kernel
from ..errors import KernelError
from ..pagemap import PAGE_SIZE
from ..running_kernel import Backed, KernelSpace
from .harness import Contender

CAVEAT = (
    "The running kernel also locks, looks up folios and flushes TLBs, and in a virtual machine "
    "its stores to page tables may trap."
)
MPROTECT, WRITEPROTECT = "running kernel, mprotect", "running kernel, uffd-wp"
RUNNING = (MPROTECT, WRITEPROTECT)
_READ, _READ_WRITE = 1, 3  # PROT_READ, and PROT_WRITE with it


@dataclass(frozen=True, slots=True)
class KernelRange:
    """A registered range of this process.

    Attributes
    ----------
    space : KernelSpace
        Whose userfaultfd it is.
    start, length : int
        In bytes.
    """

    space: KernelSpace
    start: int
    length: int

    def contenders(self) -> list[Contender]:
        """Return mprotect and UFFDIO_WRITEPROTECT, there and back, by entries."""
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]

        def mprotect(prot: int) -> None:
            if libc.mprotect(self.start, self.length, prot):
                number = ctypes.get_errno()
                raise KernelError(number, f"mprotect: {os.strerror(number)}")

        def writeprotect(protect: bool) -> None:
            self.space.writeprotect(self.start, self.length, protect=protect)

        work = 2 * self.length // PAGE_SIZE
        return [
            Contender(
                MPROTECT,
                [lambda: mprotect(_READ), lambda: mprotect(_READ_WRITE)],
                work,
            ),
            Contender(
                WRITEPROTECT,
                [lambda: writeprotect(True), lambda: writeprotect(False)],
                work,
            ),
        ]


@contextmanager
def kernel_range(length: int, backing: Backed, *, touched: bool) -> Iterator[KernelRange | str]:
    """Map and register memory of the running kernel.

    Parameters
    ----------
    length : int
        In bytes.
    backing : {"memfd", "anon"}
        A shared memfd, or private anonymous memory.
    touched : bool
        Whether every page is written before.

    Yields
    ------
    KernelRange or str
        The range, or why there is none.
    """
    refused = running_kernel.available()
    if refused is not None:
        yield refused
        return
    with KernelSpace() as space:
        start = space.mmap(length, backing)
        if touched:
            ctypes.memset(start, 1, length)
        space.register(start, length)
        yield KernelRange(space, start, length)


def vmpte() -> int:
    """Return the bytes of page tables that the kernel holds for this process (VmPTE)."""
    with Path("/proc/self/status").open(encoding="ascii") as status:
        for line in status:
            if line.startswith("VmPTE:"):
                return int(line.split()[1]) << 10
    raise KernelError(0, "VmPTE is not in /proc/self/status; Linux shows it")
