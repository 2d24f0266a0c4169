"""The kernel's flag words as enums, and the strings that stand for them.

Values are those of include/uapi and include/linux (v6.18) on x86-64. Every function that takes a
flag word takes an int, a member of these enums, or a string of lower-case names joined by "|";
protections are also written "rw-". Whether a kernel knows a flag is for its profile to judge.
"""

from __future__ import annotations

import enum
import operator

from .errors import InvalidArgument


class Prot(enum.IntFlag):
    """Protection of mmap and mprotect (include/uapi/asm-generic/mman-common.h)."""

    NONE = 0
    READ = 1
    WRITE = 2
    EXEC = 4


class Map(enum.IntFlag):
    """Flags of mmap (include/uapi/linux/mman.h, asm-generic/mman.h)."""

    SHARED = 0x1
    PRIVATE = 0x2
    FIXED = 0x10
    ANONYMOUS = 0x20
    LOCKED = 0x2000
    NORESERVE = 0x4000
    POPULATE = 0x8000
    FIXED_NOREPLACE = 0x100000


class Madv(enum.IntEnum):
    """Advice of madvise (include/uapi/asm-generic/mman-common.h, v6.18)."""

    NORMAL = 0
    RANDOM = 1
    SEQUENTIAL = 2
    WILLNEED = 3
    DONTNEED = 4
    FREE = 8
    REMOVE = 9
    DONTFORK = 10
    DOFORK = 11
    MERGEABLE = 12
    UNMERGEABLE = 13
    HUGEPAGE = 14
    NOHUGEPAGE = 15
    DONTDUMP = 16
    DODUMP = 17
    WIPEONFORK = 18
    KEEPONFORK = 19
    COLD = 20
    PAGEOUT = 21
    POPULATE_READ = 22
    POPULATE_WRITE = 23
    DONTNEED_LOCKED = 24
    COLLAPSE = 25
    HWPOISON = 100
    SOFT_OFFLINE = 101
    GUARD_INSTALL = 102
    GUARD_REMOVE = 103


class Mremap(enum.IntFlag):
    """Flags of mremap (include/uapi/linux/mman.h)."""

    MAYMOVE = 1
    FIXED = 2
    DONTUNMAP = 4


class UffdFeature(enum.IntFlag):
    """Features of UFFDIO_API (include/uapi/linux/userfaultfd.h, v6.18)."""

    PAGEFAULT_FLAG_WP = 0x1
    EVENT_FORK = 0x2
    EVENT_REMAP = 0x4
    EVENT_REMOVE = 0x8
    MISSING_HUGETLBFS = 0x10
    MISSING_SHMEM = 0x20
    EVENT_UNMAP = 0x40
    SIGBUS = 0x80
    THREAD_ID = 0x100
    MINOR_HUGETLBFS = 0x200
    MINOR_SHMEM = 0x400
    EXACT_ADDRESS = 0x800
    WP_HUGETLBFS_SHMEM = 0x1000
    WP_UNPOPULATED = 0x2000
    POISON = 0x4000
    WP_ASYNC = 0x8000
    MOVE = 0x10000


class UffdRegisterMode(enum.IntFlag):
    """Modes of UFFDIO_REGISTER (include/uapi/linux/userfaultfd.h)."""

    MISSING = 1
    WP = 2
    MINOR = 4


class UffdPagefaultFlag(enum.IntFlag):
    """Flags of a page-fault message (include/uapi/linux/userfaultfd.h)."""

    WRITE = 1
    WP = 2
    MINOR = 4


class MmCp(enum.IntFlag):
    """Flags of change_protection (include/linux/mm.h).

    Bit 0 was called DIRTY_ACCT up to v5.19 and is called TRY_CHANGE_WRITABLE since.
    """

    DIRTY_ACCT = 1
    TRY_CHANGE_WRITABLE = 1
    PROT_NUMA = 2
    UFFD_WP = 4
    UFFD_WP_RESOLVE = 8
    UFFD_WP_ALL = 12


class Vm(enum.IntFlag):
    """Flags of a VMA (include/linux/mm.h, v6.18; those that the model looks at)."""

    READ = 0x1
    WRITE = 0x2
    EXEC = 0x4
    SHARED = 0x8
    MAYREAD = 0x10
    MAYWRITE = 0x20
    MAYEXEC = 0x40
    MAYSHARE = 0x80
    UFFD_MISSING = 0x200
    PFNMAP = 0x400
    UFFD_WP = 0x1000
    LOCKED = 0x2000
    IO = 0x4000
    DONTCOPY = 0x20000
    DONTEXPAND = 0x40000
    ACCOUNT = 0x100000
    NORESERVE = 0x200000
    HUGETLB = 0x400000
    WIPEONFORK = 0x2000000
    SOFTDIRTY = 0x8000000
    MIXEDMAP = 0x10000000
    HUGEPAGE = 0x20000000
    NOHUGEPAGE = 0x40000000
    UFFD_MINOR = 0x2000000000


class PageIs(enum.IntFlag):
    """Page categories of PAGEMAP_SCAN (include/uapi/linux/fs.h, v6.18)."""

    WPALLOWED = 1
    WRITTEN = 2
    FILE = 4
    PRESENT = 8
    SWAPPED = 16
    PFNZERO = 32
    HUGE = 64
    SOFT_DIRTY = 128
    GUARD = 256


class PmScan(enum.IntFlag):
    """Flags of PAGEMAP_SCAN (include/uapi/linux/fs.h, v6.18)."""

    WP_MATCHING = 1
    CHECK_WPASYNC = 2


def _word(value: int, argument: str) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise InvalidArgument(
            f"{argument} {value!r} is no flag word; pass an int or a string of names"
        ) from None


def parse(names: type[enum.IntEnum] | type[enum.IntFlag], value: int | str, argument: str) -> int:
    """Return the word that `value` stands for.

    Parameters
    ----------
    names : type
        One of the enums of this module.
    value : int or str
        A word, taken as it is, or lower-case member names joined by ``"|"``; "" is 0.
    argument : str
        What the value is called in an error.

    Raises
    ------
    InvalidArgument
        For a name that the enum does not have, or what is neither string nor int.
    """
    if not isinstance(value, str):
        return _word(value, argument)
    word = 0
    wanted = list(filter(None, value.replace(" ", "").split("|")))
    if len(wanted) > 1 and not issubclass(names, enum.Flag):
        raise InvalidArgument(f"{argument} {value!r} joins {len(wanted)} values; give one of them")
    for name in wanted:
        member = names.__members__.get(name.upper()) if name.islower() else None
        if member is None:
            known = ", ".join(member.lower() for member in names.__members__)
            raise InvalidArgument(f"{argument} {name!r} is not known; use {known}, joined by '|'")
        word |= member.value  # flags themselves join slowly
    return word


_PROT_LETTERS = {"r": 1, "w": 2, "x": 4, "-": 0}  # Prot as ints, which join faster


def parse_prot(value: int | str) -> int:
    """Return the protection that an int or a string like "rw-" stands for.

    Raises
    ------
    InvalidArgument
        For letters other than r, w, x and -.
    """
    if not isinstance(value, str):
        return _word(value, "prot")
    word = 0
    for letter in value:
        bit = _PROT_LETTERS.get(letter)
        if bit is None:
            raise InvalidArgument(f"prot {value!r} has the letter {letter!r}; use r, w, x and -")
        word |= bit
    return word


PROT_NONE = Prot.NONE
PROT_READ = Prot.READ
PROT_WRITE = Prot.WRITE
PROT_EXEC = Prot.EXEC

MAP_SHARED = Map.SHARED
MAP_PRIVATE = Map.PRIVATE
MAP_FIXED = Map.FIXED
MAP_ANONYMOUS = Map.ANONYMOUS
MAP_LOCKED = Map.LOCKED
MAP_NORESERVE = Map.NORESERVE
MAP_POPULATE = Map.POPULATE
MAP_FIXED_NOREPLACE = Map.FIXED_NOREPLACE

MADV_NORMAL = Madv.NORMAL
MADV_RANDOM = Madv.RANDOM
MADV_SEQUENTIAL = Madv.SEQUENTIAL
MADV_WILLNEED = Madv.WILLNEED
MADV_DONTNEED = Madv.DONTNEED
MADV_FREE = Madv.FREE
MADV_REMOVE = Madv.REMOVE
MADV_DONTFORK = Madv.DONTFORK
MADV_DOFORK = Madv.DOFORK
MADV_MERGEABLE = Madv.MERGEABLE
MADV_UNMERGEABLE = Madv.UNMERGEABLE
MADV_HUGEPAGE = Madv.HUGEPAGE
MADV_NOHUGEPAGE = Madv.NOHUGEPAGE
MADV_DONTDUMP = Madv.DONTDUMP
MADV_DODUMP = Madv.DODUMP
MADV_WIPEONFORK = Madv.WIPEONFORK
MADV_KEEPONFORK = Madv.KEEPONFORK
MADV_COLD = Madv.COLD
MADV_PAGEOUT = Madv.PAGEOUT
MADV_POPULATE_READ = Madv.POPULATE_READ
MADV_POPULATE_WRITE = Madv.POPULATE_WRITE
MADV_DONTNEED_LOCKED = Madv.DONTNEED_LOCKED
MADV_COLLAPSE = Madv.COLLAPSE
MADV_HWPOISON = Madv.HWPOISON
MADV_SOFT_OFFLINE = Madv.SOFT_OFFLINE
MADV_GUARD_INSTALL = Madv.GUARD_INSTALL
MADV_GUARD_REMOVE = Madv.GUARD_REMOVE

MREMAP_MAYMOVE = Mremap.MAYMOVE
MREMAP_FIXED = Mremap.FIXED
MREMAP_DONTUNMAP = Mremap.DONTUNMAP

UFFD_FEATURE_PAGEFAULT_FLAG_WP = UffdFeature.PAGEFAULT_FLAG_WP
UFFD_FEATURE_EVENT_FORK = UffdFeature.EVENT_FORK
UFFD_FEATURE_EVENT_REMAP = UffdFeature.EVENT_REMAP
UFFD_FEATURE_EVENT_REMOVE = UffdFeature.EVENT_REMOVE
UFFD_FEATURE_MISSING_HUGETLBFS = UffdFeature.MISSING_HUGETLBFS
UFFD_FEATURE_MISSING_SHMEM = UffdFeature.MISSING_SHMEM
UFFD_FEATURE_EVENT_UNMAP = UffdFeature.EVENT_UNMAP
UFFD_FEATURE_SIGBUS = UffdFeature.SIGBUS
UFFD_FEATURE_THREAD_ID = UffdFeature.THREAD_ID
UFFD_FEATURE_MINOR_HUGETLBFS = UffdFeature.MINOR_HUGETLBFS
UFFD_FEATURE_MINOR_SHMEM = UffdFeature.MINOR_SHMEM
UFFD_FEATURE_EXACT_ADDRESS = UffdFeature.EXACT_ADDRESS
UFFD_FEATURE_WP_HUGETLBFS_SHMEM = UffdFeature.WP_HUGETLBFS_SHMEM
UFFD_FEATURE_WP_UNPOPULATED = UffdFeature.WP_UNPOPULATED
UFFD_FEATURE_POISON = UffdFeature.POISON
UFFD_FEATURE_WP_ASYNC = UffdFeature.WP_ASYNC
UFFD_FEATURE_MOVE = UffdFeature.MOVE

UFFDIO_REGISTER_MODE_MISSING = UffdRegisterMode.MISSING
UFFDIO_REGISTER_MODE_WP = UffdRegisterMode.WP
UFFDIO_REGISTER_MODE_MINOR = UffdRegisterMode.MINOR

UFFD_PAGEFAULT_FLAG_WRITE = UffdPagefaultFlag.WRITE
UFFD_PAGEFAULT_FLAG_WP = UffdPagefaultFlag.WP
UFFD_PAGEFAULT_FLAG_MINOR = UffdPagefaultFlag.MINOR

MM_CP_DIRTY_ACCT = MmCp.DIRTY_ACCT
MM_CP_TRY_CHANGE_WRITABLE = MmCp.TRY_CHANGE_WRITABLE
MM_CP_PROT_NUMA = MmCp.PROT_NUMA
MM_CP_UFFD_WP = MmCp.UFFD_WP
MM_CP_UFFD_WP_RESOLVE = MmCp.UFFD_WP_RESOLVE
MM_CP_UFFD_WP_ALL = MmCp.UFFD_WP_ALL

VM_READ = Vm.READ
VM_WRITE = Vm.WRITE
VM_EXEC = Vm.EXEC
VM_SHARED = Vm.SHARED
VM_MAYREAD = Vm.MAYREAD
VM_MAYWRITE = Vm.MAYWRITE
VM_MAYEXEC = Vm.MAYEXEC
VM_MAYSHARE = Vm.MAYSHARE
VM_UFFD_MISSING = Vm.UFFD_MISSING
VM_PFNMAP = Vm.PFNMAP
VM_UFFD_WP = Vm.UFFD_WP
VM_LOCKED = Vm.LOCKED
VM_IO = Vm.IO
VM_DONTCOPY = Vm.DONTCOPY
VM_DONTEXPAND = Vm.DONTEXPAND
VM_ACCOUNT = Vm.ACCOUNT
VM_NORESERVE = Vm.NORESERVE
VM_HUGETLB = Vm.HUGETLB
VM_WIPEONFORK = Vm.WIPEONFORK
VM_SOFTDIRTY = Vm.SOFTDIRTY
VM_MIXEDMAP = Vm.MIXEDMAP
VM_HUGEPAGE = Vm.HUGEPAGE
VM_NOHUGEPAGE = Vm.NOHUGEPAGE
VM_UFFD_MINOR = Vm.UFFD_MINOR

PAGE_IS_WPALLOWED = PageIs.WPALLOWED
PAGE_IS_WRITTEN = PageIs.WRITTEN
PAGE_IS_FILE = PageIs.FILE
PAGE_IS_PRESENT = PageIs.PRESENT
PAGE_IS_SWAPPED = PageIs.SWAPPED
PAGE_IS_PFNZERO = PageIs.PFNZERO
PAGE_IS_HUGE = PageIs.HUGE
PAGE_IS_SOFT_DIRTY = PageIs.SOFT_DIRTY
PAGE_IS_GUARD = PageIs.GUARD

PM_SCAN_WP_MATCHING = PmScan.WP_MATCHING
PM_SCAN_CHECK_WPASYNC = PmScan.CHECK_WPASYNC
