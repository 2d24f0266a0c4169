"""Types of the extension module; users import ptwalk, whose classes hold these.

Arguments are positional. `ProtectResult`, `AccessResult`, `UffdMsg`, `Signal` and `PendingFault`
are public: immutable values with equality, hash, pickling and `asdict`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .vma import CoreVma

_U64 = npt.NDArray[np.uint64]

class _PybindType(type): ...

def profiles() -> tuple[str, ...]: ...
def kernels() -> tuple[str, ...]: ...
def trim() -> int: ...
def profile_info(name: str, config: Mapping[str, bool]) -> dict[str, Any]: ...
def file_size(size: int, /) -> int: ...

FUZZ_FORMAT_VERSION: int
FUZZ_MAX_OPS: int
FUZZ_MAX_LENGTH: int

def fuzz_operations() -> tuple[
    tuple[str, bool, tuple[tuple[str, str, str, int, int, tuple[str, ...]], ...]], ...
]: ...
def fuzz_places() -> tuple[int, ...]: ...
def fuzz_lengths() -> tuple[int, ...]: ...
def fuzz_setups() -> tuple[tuple[str, str, bytes], ...]: ...
def fuzz_branches() -> tuple[str, ...]: ...
def fuzz_violations() -> tuple[str, ...]: ...

class ProtectResult(metaclass=_PybindType):
    """What one change of protection did, counted by kind.

    Outside hugetlb, ``pages == none_to_marker + marker_to_none + present + swap + 512 * huge``.
    """

    @property
    def pages(self) -> int:
        """The count that change_protection() returns."""
    @property
    def none_to_marker(self) -> int:
        """None entries that took a marker."""
    @property
    def marker_to_none(self) -> int:
        """Markers that were cleared."""
    @property
    def present(self) -> int:
        """Present entries that were visited, changed or not."""
    @property
    def swap(self) -> int:
        """Swap-format entries that were changed."""
    @property
    def huge(self) -> int:
        """Huge leaves that were changed whole."""
    @property
    def none_skipped(self) -> int:
        """Pages that a wr-protect left none, with or without tables."""
    @property
    def tables_allocated(self) -> int:
        """Page tables that were allocated."""
    @property
    def bad_cleared(self) -> tuple[tuple[str, int], ...]:
        """Level and lowest address of each bad table entry that was cleared."""
    @property
    def flush(self) -> tuple[int, int] | None:
        """Range of the closing TLB flush, in bytes; None where there was none."""
    @property
    def notifier(self) -> tuple[tuple[str, int, int], ...]:
        """Kind ("protection_vma", "clear"), start and end of each mmu-notifier start."""
    @property
    def notifier_unended(self) -> int:
        """Notifier starts that were never ended."""
    @property
    def warnings(self) -> tuple[str, ...]:
        """What the kernel would print, each occurrence."""
    @property
    def numa_huge_pte_updates(self) -> int:
        """The counter NUMA_HUGE_PTE_UPDATES."""
    @property
    def thp_split_pmd(self) -> int:
        """The counter THP_SPLIT_PMD."""
    @property
    def rss_file(self) -> int:
        """Change of the file or shmem RSS counter, in pages."""
    @property
    def dirtied(self) -> int:
        """Huge pages that a split marked dirty."""
    @property
    def referenced(self) -> int:
        """Huge pages that a split marked referenced."""
    @property
    def pmd_flush(self) -> tuple[int, ...]:
        """Start of each 2 MiB flush, in order."""
    def asdict(self) -> dict[str, Any]:
        """Return all attributes by name."""
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

class UffdMsg(metaclass=_PybindType):
    """One message of a userfaultfd, as read(2) returns it."""

    @property
    def event(self) -> str:
        """One of "pagefault", "fork", "remap", "remove", "unmap"."""
    @property
    def flags(self) -> int:
        """UFFD_PAGEFAULT_FLAG_* of a page fault."""
    @property
    def address(self) -> int:
        """Address of the fault; of remap, remove and unmap: the start of the range."""
    @property
    def to(self) -> int | None:
        """Where a remap moved it."""
    @property
    def length(self) -> int | None:
        """Bytes that a remap moved."""
    @property
    def end(self) -> int | None:
        """End of the range of remove and unmap."""
    @property
    def child(self) -> int | None:
        """Number of the userfaultfd that a fork made."""
    @property
    def ptid(self) -> int:
        """Thread that waits in a page fault, with THREAD_ID; else 0."""
    def asdict(self) -> dict[str, Any]:
        """Return all attributes by name."""
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

class Signal(metaclass=_PybindType):
    """A signal with the code that siginfo gives."""

    @property
    def signo(self) -> int:
        """7 for SIGBUS, 11 for SIGSEGV."""
    @property
    def code(self) -> int:
        """The si_code: SEGV_MAPERR 1, SEGV_ACCERR 2, BUS_ADRERR 2, BUS_MCEERR_AR 4."""
    @property
    def name(self) -> str:
        """The name of the signal."""
    def asdict(self) -> dict[str, Any]:
        """Return all attributes by name."""
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

class AccessResult(metaclass=_PybindType):
    """What one load or store did."""

    @property
    def outcome(self) -> str:
        """One of "done", "blocked", "signal"."""
    @property
    def address(self) -> int:
        """What was accessed."""
    @property
    def before(self) -> int:
        """The entry before; 0 where no PTE table existed."""
    @property
    def after(self) -> int:
        """The entry after it."""
    @property
    def message(self) -> UffdMsg | None:
        """What a userfaultfd was told."""
    @property
    def signal(self) -> Signal | None:
        """How the access ended, for the outcome "signal"."""
    def asdict(self) -> dict[str, Any]:
        """Return all attributes by name."""
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

class PendingFault(metaclass=_PybindType):
    """A fault that waits in handle_userfault()."""

    @property
    def address(self) -> int:
        """The page, in bytes."""
    @property
    def write(self) -> bool:
        """Whether it is a store."""
    @property
    def uffd(self) -> int:
        """Number of the userfaultfd that was told."""
    @property
    def message(self) -> UffdMsg:
        """What it was told."""
    @property
    def woken(self) -> bool:
        """Whether a wake reached it; the next access to the page is the retry."""
    def asdict(self) -> dict[str, Any]:
        """Return all attributes by name."""
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

class Machine(metaclass=_PybindType):
    def __init__(
        self, profile: str, config: Mapping[str, bool], levels: int, max_tables: int | None, /
    ) -> None: ...
    @property
    def profile(self) -> str: ...
    @property
    def kernel(self) -> str: ...
    @property
    def levels(self) -> int: ...
    @property
    def config(self) -> dict[str, bool]: ...
    @property
    def threads(self) -> int: ...
    @threads.setter
    def threads(self, threads: int, /) -> None: ...
    @property
    def max_tables(self) -> int: ...
    def trim(self) -> int: ...
    def create_file(self, kind: str, size: int, writable: bool, /) -> int: ...
    def file_info(self, file: int, /) -> tuple[str, int, bool]: ...
    def file_cached_pages(self, file: int, /) -> _U64: ...
    def file_read(self, file: int, offset: int, length: int, /) -> None: ...
    def file_write(self, file: int, offset: int, length: int, /) -> None: ...
    def file_truncate(self, file: int, size: int, /) -> None: ...
    def file_punch_hole(self, file: int, offset: int, length: int, /) -> None: ...

class AddressSpace(metaclass=_PybindType):
    def __init__(self, machine: Machine, /) -> None: ...
    @property
    def root(self) -> int: ...
    @property
    def table_base(self) -> int: ...
    @property
    def task_size(self) -> int: ...
    # System calls
    def mmap(
        self, addr: int, length: int, prot: int, flags: int, file: int, offset: int, /
    ) -> tuple[int, CoreVma]: ...
    def munmap(self, start: int, length: int, /) -> None: ...
    def mprotect(
        self, start: int, length: int, prot: int, threads: int | None, /
    ) -> ProtectResult: ...
    def change_protection(
        self, start: int, end: int, newprot: int, cp_flags: int, /
    ) -> ProtectResult: ...
    def mlock(self, start: int, length: int, /) -> None: ...
    def munlock(self, start: int, length: int, /) -> None: ...
    def madvise(
        self, start: int, length: int, advice: int, victims: Sequence[int] | None, /
    ) -> None: ...
    def mremap(
        self, old_addr: int, old_len: int, new_len: int, flags: int, new_addr: int, /
    ) -> tuple[int, CoreVma]: ...
    def fork(self) -> AddressSpace: ...
    def access(self, addr: int, write: bool, thread: int, /) -> AccessResult: ...
    def kernel_access(self, addr: int, write: bool, /) -> AccessResult: ...
    def populate(self, start: int, length: int, write: bool, /) -> int: ...
    def access_many(self, addrs: _U64, write: npt.NDArray[np.uint8], /) -> npt.NDArray[np.void]: ...
    def reclaim(self, start: int, length: int, /) -> int: ...
    def migrate_start(self, start: int, length: int, /) -> list[tuple[int, int]]: ...
    def migrate_finish(self, pages: Sequence[tuple[int, int]], /) -> list[int]: ...
    def pending(self) -> list[PendingFault]: ...
    # userfaultfd
    def userfaultfd(self, features: int, user_mode_only: bool, /) -> int: ...
    def uffd_register(self, uffd: int, start: int, length: int, mode: int, /) -> int: ...
    def uffd_unregister(self, uffd: int, start: int, length: int, /) -> None: ...
    def uffd_writeprotect(
        self, uffd: int, start: int, length: int, mode: int, threads: int | None, /
    ) -> ProtectResult: ...
    def uffd_wake(self, uffd: int, start: int, length: int, /) -> None: ...
    def uffd_copy(self, uffd: int, dst: int, length: int, mode: int, /) -> int: ...
    def uffd_zeropage(self, uffd: int, start: int, length: int, mode: int, /) -> int: ...
    def uffd_continue(self, uffd: int, start: int, length: int, mode: int, /) -> int: ...
    def uffd_poison(self, uffd: int, start: int, length: int, mode: int, /) -> int: ...
    def uffd_move(self, uffd: int, dst: int, src: int, length: int, mode: int, /) -> int: ...
    def uffd_read(self, uffd: int, /) -> list[UffdMsg]: ...
    def uffd_close(self, uffd: int, /) -> None: ...
    def uffd_check(self, uffd: int, /) -> None: ...
    def uffd_features(self, uffd: int, /) -> int: ...
    def uffd_closed(self, uffd: int, /) -> bool: ...
    # Reading
    def ptes(self, start: int, length: int, out: _U64 | None, threads: int | None, /) -> _U64: ...
    def levels(self, start: int, length: int, /) -> npt.NDArray[np.uint8]: ...
    def pagemap(self, start: int, length: int, /) -> _U64: ...
    def translate(self, addrs: _U64, threads: int | None, /) -> _U64: ...
    def pages(self, start: int, length: int, /) -> npt.NDArray[np.void]: ...
    def tables(self, copy: bool, /) -> _U64: ...
    def walk(self, addr: int, /) -> list[tuple[str, int, int]]: ...
    def count(self, start: int, length: int, /) -> dict[str, int]: ...
    def vmas(self) -> list[CoreVma]: ...
    def find_vma(self, addr: int, /) -> CoreVma | None: ...
    def stats(self) -> dict[str, int]: ...
    def validate(self) -> list[str]: ...
    # Raw stores
    def entry(self, addr: int, level: str | int, /) -> int: ...
    def set_entry(self, addr: int, level: str | int, value: int, /) -> None: ...
    def set_ptes(self, start: int, ptes: _U64, /) -> None: ...
    def alloc_table(self, addr: int, level: str | int, flags: int, /) -> None: ...
    def set_vm_flags(self, start: int, length: int, add: int, remove: int, /) -> None: ...
    def load_vma(
        self,
        start: int,
        end: int,
        vm_flags: int,
        pgoff: int,
        file: int,
        kind: str,
        name: str,
        /,
    ) -> None: ...
    def load_pages(self, start: int, ptes: _U64, facts: npt.NDArray[np.uint8], /) -> None: ...
    def fail_table_alloc(self, n: int, /) -> None: ...
    def pagemap_scan(
        self, start: int, length: int, masks: Sequence[int], /
    ) -> tuple[list[tuple[int, int, int]], int]: ...

class FuzzExecutor(metaclass=_PybindType):
    def __init__(
        self,
        profile: str,
        config: Mapping[str, bool],
        setup: bytes,
        kernel: str,
        raw: bool,
        judge_each: bool,
        /,
    ) -> None: ...
    def run(self, program: bytes, /) -> tuple[int, int, _U64, int, int]: ...
    def run_batch(
        self, programs: Sequence[bytes] | npt.NDArray[np.uint8], coverage: bool, /
    ) -> tuple[_U64, _U64, npt.NDArray[np.uint8] | None, _U64]: ...
    def steps(self, program: bytes, /) -> list[tuple[str, str]]: ...
    def state_hash(self) -> int: ...
