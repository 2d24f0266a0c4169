"""Reading a running process: its VMAs and entries as an `AddressSpace`, and what was inferred.

`read` takes /proc/PID/smaps and pagemap (fs/proc/task_mmu.c, v5.12 to v6.18) of this or another
process. The process is not stopped and not changed. Left out: protection keys, huge leaves (shown
as 4 KiB entries), the userfaultfds behind registered VMAs, and other processes that map its pages.
"""

from __future__ import annotations

import mmap
import platform
import re
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from . import _core
from .address_space import AddressSpace
from .files import File, RegularFile, ShmemFile
from .flags import Vm
from .live_entries import Flags, Inferred, Kernel, infer
from .pagemap import PAGE_SIZE, PM_PFRAME_MASK, PM_SOFT_DIRTY, Entries, Pagemap
from .procfs import Backing, Mapping, ProcessImage, read_process

_NEAREST = (((6, 13), "6.18"), ((6, 2), "6.12"), ((5, 19), "6.1"), ((0, 0), "5.12"))
_PM_UFFD_WP_SINCE, _PM_GUARD_SINCE = (5, 14), (6, 15)  # fs/proc/task_mmu.c
_FILES = {Backing.SHMEM: ShmemFile, Backing.FILE: RegularFile}
_KINDS = {Backing.ANON: "anon", Backing.SHMEM: "shmem", Backing.FILE: "regular"}
_UFFD = Vm.UFFD_MISSING | Vm.UFFD_WP | Vm.UFFD_MINOR
_USER_END = 1 << 56  # with 5 levels; [vsyscall] lies above

# fs/proc/task_mmu.c:show_smap_vma_flags and include/linux/mm.h (v6.18). Names that are missing here
# have no fixed bit or no meaning to the model.
_VM_FLAGS: dict[str, int] = {
    "rd": Vm.READ,
    "wr": Vm.WRITE,
    "ex": Vm.EXEC,
    "sh": Vm.SHARED,
    "mr": Vm.MAYREAD,
    "mw": Vm.MAYWRITE,
    "me": Vm.MAYEXEC,
    "ms": Vm.MAYSHARE,
    "gd": 0x100,  # VM_GROWSDOWN
    "um": Vm.UFFD_MISSING,
    "pf": Vm.PFNMAP,
    "uw": Vm.UFFD_WP,
    "ui": Vm.UFFD_MINOR,
    "lo": Vm.LOCKED,
    "io": Vm.IO,
    "sr": 0x8000,  # VM_SEQ_READ
    "rr": 0x10000,  # VM_RAND_READ
    "dc": Vm.DONTCOPY,
    "de": Vm.DONTEXPAND,
    "lf": 0x80000,  # VM_LOCKONFAULT
    "ac": Vm.ACCOUNT,
    "nr": Vm.NORESERVE,
    "ht": Vm.HUGETLB,
    "sf": 0x800000,  # VM_SYNC
    "wf": Vm.WIPEONFORK,
    "dd": 0x4000000,  # VM_DONTDUMP
    "sd": Vm.SOFTDIRTY,
    "mm": Vm.MIXEDMAP,
    "hg": Vm.HUGEPAGE,
    "nh": Vm.NOHUGEPAGE,
    "mg": 0x80000000,  # VM_MERGEABLE
}


@dataclass(frozen=True, slots=True)
class Report:
    """What was seen of a process, and what was inferred.

    Attributes
    ----------
    pid : int
        Process.
    kernel : str
        Release of the running kernel.
    profile : str
        Profile of the address space.
    vmas, files : int
        VMAs and different files in the address space.
    present, swapped, markers : int
        Pages by entry; `present` is the number of words with bit 63 in its pagemap.
    zero : int
        Present pages that are the zero page.
    huge : int
        Present pages that a huge leaf maps; the address space has 4 KiB entries for them.
    seen : tuple of str
        What pagemap showed.
    inferred : tuple of str
        What it did not show, and where it was taken from.
    left_out : tuple of str
        What is not in the address space.
    changed : tuple of str
        VMAs that changed while they were read; only what held still is in the address space.
    attempts : int
        How often the process was read.
    """

    pid: int
    kernel: str
    profile: str
    vmas: int
    files: int
    present: int
    swapped: int
    markers: int
    zero: int
    huge: int
    seen: tuple[str, ...]
    inferred: tuple[str, ...]
    left_out: tuple[str, ...]
    changed: tuple[str, ...]
    attempts: int

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)

    def __str__(self) -> str:
        """Return a line of what was seen, one of what was inferred, then what is special."""
        lines = [
            f"live: pid {self.pid}, profile {self.profile}, {self.vmas} VMAs, "
            f"{self.present} pages present, {self.swapped} swapped; seen: {', '.join(self.seen)}",
            f"inferred: {', '.join(self.inferred)}",
        ]
        if self.left_out:
            lines.append(f"left out: {', '.join(self.left_out)}")
        if self.huge:
            lines.append(f"huge: {self.huge} pages under huge leaves are shown as 4 KiB entries")
        if self.changed:
            lines.append(
                f"changed while it was read, {self.attempts} times; what did not hold still is "
                f"missing: {', '.join(self.changed)}"
            )
        return "\n".join(lines)


class LiveRead(NamedTuple):
    """What `read` returns.

    Attributes
    ----------
    space : AddressSpace
        The process at one time, on a machine of its own.
    report : Report
        What was seen, and what was inferred.
    """

    space: AddressSpace
    report: Report


def read(pid: int, *, profile: str | None = None) -> LiveRead:
    """Read a process into an address space.

    Parameters
    ----------
    pid : int
        Process, this one included.
    profile : str, optional
        The kernel's rules for the address space; by default those nearest the running kernel.

    Returns
    -------
    LiveRead
        `space` has the VMAs of the process, an entry of the same kind for every page, and one file
        for each device and inode. Mappings that are not modelled (hugetlb, DAX, device, [vdso])
        are VMAs of kind "other".

    Raises
    ------
    LiveError
        ESRCH: no such process, a kernel thread, or it has exited. EPERM: reading is refused.
    InvalidArgument
        `pid` is not a positive int, or the profile is unknown.

    Notes
    -----
    A process may change while it is read; then it is read again, up to four times. What did not
    hold still even so is left out, and `report.changed` names it.
    """
    name = nearest_profile(platform.release()) if profile is None else profile
    _core.profile_info(name, {})  # refuses an unknown one
    image = read_process(pid)
    # Made after the process was read, which may be this one: its memory is not to be in the image.
    config = {"MEM_SOFT_DIRTY": _soft_dirty(image)}
    mm = AddressSpace(name, levels=5 if _five_levels() else 4, config=config)
    _load_vmas(mm, [m for m in image.mappings if m.end <= _USER_END])
    found = _infer(mm, image.entries)
    _load_entries(mm, image.entries, found)
    return LiveRead(mm, _report(mm, image, found))


def nearest_profile(release: str) -> str:
    """Return the name of the profile nearest a kernel release.

    Parameters
    ----------
    release : str
        As ``uname -r`` prints it, ``"6.12.41-amd64"``.
    """
    version = _version(release)
    return next(name for since, name in _NEAREST if version >= since)


def _version(release: str) -> tuple[int, int]:
    """Return the numbers that a release starts with; those of a far future if it has none."""
    match = re.match(r"(\d+)\.(\d+)", release)
    return (int(match[1]), int(match[2])) if match else (1 << 16, 0)


# What the running kernel is.


def _five_levels() -> bool:
    """Whether the kernel walks 5 levels: it takes the flag away where it does not."""
    text = Path("/proc/cpuinfo").read_text(errors="replace")
    flags = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    return flags is not None and "la57" in flags[1].split()


def _soft_dirty(image: ProcessImage) -> bool:
    """Whether the kernel has CONFIG_MEM_SOFT_DIRTY: new VMAs and written pages then show it."""
    flagged = any("sd" in m.vmflags for m in image.mappings)
    return flagged or image.entries.count(PM_SOFT_DIRTY) > 0


def _zero_pfn() -> int:
    """Return the frame of the kernel's zero page; 0 where it is hidden."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    with closing(mmap.mmap(-1, PAGE_SIZE, flags, mmap.PROT_READ)) as page:
        _ = page[0]  # a read maps it
        address = np.frombuffer(page, dtype=np.uint8).ctypes.data
        try:
            with Pagemap.open() as pagemap:
                return int(pagemap.words(address, PAGE_SIZE)[0]) & PM_PFRAME_MASK
        except PermissionError:  # this process has changed its user
            return 0


def _swap_in_use() -> bool:
    """Whether any swap area holds pages."""
    try:
        areas = Path("/proc/swaps").read_text().splitlines()[1:]
    except FileNotFoundError:  # built without CONFIG_SWAP
        return False
    return any(int(area.split()[-2]) for area in areas)


# VMAs and files.


def _load_vmas(mm: AddressSpace, mappings: Sequence[Mapping]) -> None:
    """Insert a VMA for each mapping; equal device and inode are one file."""
    groups: dict[tuple[int, int], list[Mapping]] = {}
    for m in mappings:
        if m.backing in _FILES:
            groups.setdefault((m.dev, m.inode), []).append(m)
    files = {key: _file(group) for key, group in groups.items()}
    for m in mappings:
        flags = sum(_VM_FLAGS[name] for name in m.vmflags if name in _VM_FLAGS)
        file = files[m.dev, m.inode] if m.backing in _FILES else None
        offset = 0 if file is None else m.offset
        kind = _KINDS.get(m.backing, "other")
        mm.load_vma(m.start, m.end, flags, kind=kind, file=file, offset=offset, name=m.path)


def _file(mappings: Sequence[Mapping]) -> File:
    """Return a file as far as its mappings tell: up to the last page that one of them maps."""
    size = max(m.offset + m.length for m in mappings)
    writable = any(m.shared and "mw" in m.vmflags for m in mappings)
    return _FILES[mappings[0].backing](size, writable=writable)


# Entries.


def _infer(mm: AddressSpace, entries: Entries) -> Inferred:
    """Return the entries of the address space."""
    profile = _core.profile_info(mm.profile, mm.config)
    running = _core.profile_info(nearest_profile(platform.release()), {})
    zero_pfn = _zero_pfn() if entries.zero is None else 0
    kernel = Kernel(running["swp_kinds"], zero_pfn, _swap_in_use())
    return infer(entries, mm.vmas, profile, kernel)


def _load_entries(mm: AddressSpace, entries: Entries, found: Inferred) -> None:
    """Store the entries, a table at a time: `load_pages` leaves the words of 0 in between alone."""
    page = (entries.address >> np.uint64(12)).astype(np.intp)
    breaks = np.flatnonzero(np.diff(page >> 9)) + 1
    bounds = [0, *breaks.tolist(), len(page)]
    for first, end in pairwise(bounds):
        if first == end:
            continue
        at = page[first:end] - page[first]
        ptes = np.zeros(at[-1] + 1, dtype=np.uint64)
        facts = np.zeros(at[-1] + 1, dtype=np.uint8)
        ptes[at], facts[at] = found.ptes[first:end], found.facts[first:end]
        mm.load_pages(int(entries.address[first]), ptes, facts)


# The report.


def _report(mm: AddressSpace, image: ProcessImage, found: Inferred) -> Report:
    """Say what was seen and what was not."""
    entries, vmas = image.entries, mm.vmas
    markers = int(np.count_nonzero(found.marker & (found.ptes != 0)))
    lost = int(np.count_nonzero(found.marker & (found.ptes == 0)))
    left_out = [f"{m.path} (above user space)" for m in image.mappings if m.end > _USER_END]
    if lost:
        left_out.append(f"{lost} markers that {mm.profile} does not have")
    if registered := sum(bool(v.vm_flags & _UFFD) for v in vmas):
        left_out.append(f"the userfaultfds of {registered} registered VMAs")
    return Report(
        pid=image.pid,
        kernel=platform.release(),
        profile=mm.profile,
        vmas=len(vmas),
        files=len({id(vma.file) for vma in vmas if vma.file is not None}),
        present=entries.present,
        swapped=int(np.count_nonzero(~found.marker)) - entries.present,
        markers=markers,
        zero=_count(entries.zero),
        huge=_count(entries.huge),
        seen=_seen(mm, entries),
        inferred=_inferred(mm, entries),
        left_out=tuple(left_out),
        changed=tuple(str(m) for m in image.changed),
        attempts=image.attempts,
    )


def _count(rows: Flags | None) -> int:
    return 0 if rows is None else int(np.count_nonzero(rows))


def _seen(mm: AddressSpace, entries: Entries) -> tuple[str, ...]:
    """Name what the words of the running kernel's pagemap show, and its PAGEMAP_SCAN."""
    version = _version(platform.release())
    seen = {
        "present": True,
        "swap": True,
        "file": True,
        "exclusive": True,
        "uffd-wp": version >= _PM_UFFD_WP_SINCE,
        "soft-dirty": mm.config["MEM_SOFT_DIRTY"],
        "guard": version >= _PM_GUARD_SINCE,
        "zero page": entries.zero is not None,
        "huge": entries.huge is not None,
        "pfn": entries.pfn_visible,
    }
    return tuple(name for name, shown in seen.items() if shown)


def _inferred(mm: AddressSpace, entries: Entries) -> tuple[str, ...]:
    """Name what it does not show, and where it was taken from."""
    hidden = not entries.pfn_visible
    inferred = {
        "RW and D (from the VMA)": True,
        "pfn (hidden without CAP_SYS_ADMIN)": hidden,
        "page-table levels above absent entries": True,
        "A (set)": True,
        "AnonExclusive (of pages mapped once)": True,
        "swap offsets": entries.swap > 0,
        "swap or marker (hidden without CAP_SYS_ADMIN)": hidden and entries.swap > 0,
        "uffd-wp (unset)": _version(platform.release()) < _PM_UFFD_WP_SINCE,
        "SOFT_DIRTY (of dirty pages)": mm.config["MEM_SOFT_DIRTY"],
        "zero page (from its pfn)": entries.zero is None,
        "file sizes (from the VMAs)": True,
    }
    return tuple(text for text, applies in inferred.items() if applies)
