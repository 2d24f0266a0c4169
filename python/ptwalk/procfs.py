"""The mappings and page-table entries of a process, as /proc shows them.

Models nothing: it reads /proc/PID/smaps, mountinfo and pagemap into plain values and says what
backs each mapping. A process may change while it is read; `read_process` returns only what stayed
the same from before to after. What pagemap hides (RW, D, A) is for the caller to infer.
"""

from __future__ import annotations

import enum
import errno
import functools
import os
import re
import stat
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from .errors import InvalidArgument, LiveError
from .pagemap import PAGE_SIZE, U64, Entries, Pagemap


class Backing(enum.StrEnum):
    """What fills the pages of a mapping."""

    ANON = "anon"  #: anonymous memory, private /dev/zero included
    SHMEM = "shmem"  #: tmpfs, memfd, System V and shared anonymous memory; shared or private
    FILE = "file"  #: a regular file in the page cache
    HUGETLB = "hugetlb"  #: hugetlbfs, huge memfd, MAP_HUGETLB
    DAX = "dax"  #: a file without page cache
    DEVICE = "device"  #: device nodes, anonymous inodes, sockets
    PFNMAP = "pfnmap"  #: VM_PFNMAP or VM_IO: page frames without struct page
    SPECIAL = "special"  #: [vdso], [vvar], [vsyscall], AIO rings, secret memory

    @property
    def ordinary(self) -> bool:
        """Whether it is anonymous memory, shmem or a regular file."""
        return self in (Backing.ANON, Backing.SHMEM, Backing.FILE)


@dataclass(frozen=True, slots=True)
class Mapping:
    """One VMA: a record of /proc/PID/smaps.

    Attributes
    ----------
    start, end : int
        Half-open range in bytes.
    perms : str
        Four letters as maps prints them, ``"rw-p"``.
    offset : int
        File offset in bytes.
    dev, inode : int
        Device number (`os.makedev`) and inode; equal pairs are one file. Both 0 for none.
    path : str
        As maps prints it, ``" (deleted)"`` included.
    vmflags : frozenset of str
        Two-letter names of VmFlags.
    backing : Backing
        What fills the pages.
    """

    start: int
    end: int
    perms: str
    offset: int
    dev: int
    inode: int
    path: str
    vmflags: frozenset[str]
    backing: Backing

    @property
    def length(self) -> int:
        """Length in bytes."""
        return self.end - self.start

    @property
    def shared(self) -> bool:
        """Whether it is MAP_SHARED (VM_MAYSHARE; VM_SHARED is "sh" in `vmflags`)."""
        return self.perms[3] == "s"

    def __str__(self) -> str:
        text = f"0x{self.start:016x}-0x{self.end:016x} {self.perms} {self.backing:<7}"
        return f"{text} {self.path}" if self.path else text.rstrip()


@dataclass(frozen=True, eq=False, slots=True)
class ProcessImage:
    """Mappings and entries of a process at one time.

    Attributes
    ----------
    pid : int
        Process.
    mappings : tuple of Mapping
        In order of address; only those, and those parts, that stayed while the entries were read.
    entries : Entries
        Pages that are not empty, all of them inside `mappings`.
    attempts : int
        How often the process was read until its mappings held still, or until giving up.
    changed : tuple of Mapping
        Mappings that did not hold still in the last attempt; empty for a consistent image.
    """

    pid: int
    mappings: tuple[Mapping, ...]
    entries: Entries
    attempts: int
    changed: tuple[Mapping, ...]


def read_mappings(pid: int) -> list[Mapping]:
    """Read the mappings of a process.

    Parameters
    ----------
    pid : int
        Process, this one included.

    Returns
    -------
    list of Mapping
        In order of address.

    Raises
    ------
    LiveError
        ESRCH: no such process, a kernel thread, or it has exited. EPERM: reading is refused.
    InvalidArgument
        `pid` is not a positive int.
    """
    with _process(pid) as directory:
        return _mappings(directory, pid)


def read_entries(pid: int, start: int = 0, end: int = 1 << 64, *, scan: bool = True) -> Entries:
    """Read the entries of the mapped, non-empty pages in a range.

    Parameters
    ----------
    pid : int
        Process, this one included.
    start, end : int
        Half-open range in bytes, page aligned.
    scan : bool
        Skip holes with PAGEMAP_SCAN where the kernel has it (6.7).

    Returns
    -------
    Entries

    Raises
    ------
    LiveError
        As for `read_mappings`.
    InvalidArgument
        `pid` is not a positive int, or the range is not aligned or reversed.

    Notes
    -----
    The cost is that of the populated pages (about 50 ns each), whatever the length of the range.
    Without PAGEMAP_SCAN a reserved TiB costs about a second.
    """
    for name, value in (("start", start), ("end", end)):
        if value % PAGE_SIZE:
            raise InvalidArgument(
                f"{name} {value:#018x} is not page aligned ({PAGE_SIZE}); "
                "round down with ptwalk.page_align_down"
            )
    if not 0 <= start <= end <= 1 << 64:
        raise InvalidArgument(
            f"the range {start:#018x}-{end:#018x} is reversed or outside 64 bits; "
            "give 0 <= start <= end <= 2**64"
        )
    with _process(pid) as directory:
        ranges = _ranges(_mappings(directory, pid), start, end)
        with Pagemap.open(directory) as pagemap:
            return pagemap.entries(ranges, scan=scan)


def read_process(pid: int, *, attempts: int = 4, scan: bool = True) -> ProcessImage:
    """Read mappings and entries of a process so that they belong together.

    The mappings are read before and after the entries. When one went away or changed in between,
    all is read again; mappings that come new do no harm and are not in the result. After the last
    attempt only what held still is returned, and `changed` names the rest.

    Parameters
    ----------
    pid : int
        Process, this one included. It is not stopped: pages may come and go while they are read.
    attempts : int
        How often to read at most.
    scan : bool
        As for `read_entries`.

    Returns
    -------
    ProcessImage

    Raises
    ------
    LiveError
        As for `read_mappings`.
    InvalidArgument
        `pid` is not a positive int, or `attempts` is less than 1.
    """
    if attempts < 1:
        raise InvalidArgument(f"attempts {attempts} is less than 1; read at least once")
    with _process(pid) as directory:
        attempt = 0
        while True:
            attempt += 1
            before = _mappings(directory, pid)
            entries = _entries_or_none(directory, before, scan)
            after = _mappings(directory, pid)
            kept, changed = _held_still(before, after)
            if entries is not None and (not changed or attempt >= attempts):
                entries = entries.inside(_ranges(kept))
                return ProcessImage(pid, tuple(kept), entries, attempt, tuple(changed))
            if attempt >= attempts:
                raise LiveError(
                    errno.ESRCH, f"process {pid} calls execve all the time; stop it, then read it"
                )


@contextmanager
def _process(pid: int) -> Iterator[int]:
    """Open /proc/PID: the descriptor stays with this process, whoever gets its number next."""
    if type(pid) is not int or pid < 1:
        raise InvalidArgument(f"pid {pid!r} is not a positive int; use os.getpid() for this one")
    try:
        directory = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield directory
        finally:
            os.close(directory)
    except (FileNotFoundError, ProcessLookupError):
        raise LiveError(
            errno.ESRCH, f"process {pid} does not exist, has exited or is hidden; see ps -e"
        ) from None
    except PermissionError as e:
        name = errno.errorcode[e.errno or errno.EPERM]
        raise LiveError(
            errno.EPERM,
            f"process {pid}: {e.filename or 'pagemap'}: {name}; it must be of the same user and "
            "dumpable, or run as root (PTRACE_MODE_READ)",
        ) from None


def _text(directory: int, name: str) -> str:
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    with os.fdopen(fd, "rb") as file:
        return os.fsdecode(file.read())


# Paths may hold any character but a newline; detail lines start with a capital letter.
_RECORD = re.compile(
    r"^([0-9a-f]+)-([0-9a-f]+) ([-rwxps]{4}) ([0-9a-f]+) ([0-9a-f]+):([0-9a-f]+) (\d+) *(.*)$"
    r"|^VmFlags:(.*)$",
    re.MULTILINE,
)


def _mappings(directory: int, pid: int) -> list[Mapping]:
    """Parse smaps: each record opens with its line of maps and ends with VmFlags."""
    text = _text(directory, "smaps")
    if not text:
        raise LiveError(
            errno.ESRCH, f"process {pid} has no address space: a kernel thread, or it has exited"
        )
    filesystems = _filesystems(directory)
    mappings = []
    head: tuple[str, ...] = ()
    for match in _RECORD.finditer(text):
        if match[1]:
            head = match.groups("")
            continue
        start, end, offset = (int(head[i], 16) for i in (0, 1, 3))
        dev = os.makedev(int(head[4], 16), int(head[5], 16))
        perms, inode, path, flags = head[2], int(head[6]), head[7], frozenset(match[9].split())
        filesystem = filesystems.get(dev, ("", frozenset()))
        node = _is_node(directory, path)
        backing = _classify(perms, dev, inode, path, flags, filesystem, node)
        mappings.append(Mapping(start, end, perms, offset, dev, inode, path, flags, backing))
    return mappings


Filesystem = tuple[str, frozenset[str]]


def _filesystems(directory: int) -> dict[int, Filesystem]:
    """Read type and options of the mounted filesystems by device number."""
    found: dict[int, Filesystem] = {}
    try:
        text = _text(directory, "mountinfo")
    except OSError as e:
        if e.errno == errno.EINVAL:  # fs/proc_namespace.c:mounts_open_common: it is exiting
            raise ProcessLookupError(errno.ESRCH, "the process is exiting") from None
        raise
    for line in text.split("\n")[:-1]:
        left, _, right = line.partition(" - ")
        major, minor = left.split()[2].split(":")
        kind, *_, options = right.split(" ")
        found[os.makedev(int(major), int(minor))] = kind, frozenset(options.split(","))
    return found


@functools.cache
def _shm_mnt() -> int:
    """Return the device of the kernel's own tmpfs (mm/shmem.c:shm_mnt)."""
    fd = os.memfd_create("ptwalk", os.MFD_CLOEXEC)
    try:
        return os.fstat(fd).st_dev
    finally:
        os.close(fd)


_ANON_NAMES = ("", "[heap]", "[stack]")
_PSEUDO_FILES = ("/[aio]", "/secretmem")


def _classify(  # noqa: PLR0911 - a rule a line, the first that fits
    perms: str,
    dev: int,
    inode: int,
    path: str,
    vmflags: frozenset[str],
    filesystem: Filesystem,
    node: bool,
) -> Backing:
    """Say what backs a VMA, first by its flags, then by its file."""
    kind, options = filesystem
    if "ht" in vmflags:
        return Backing.HUGETLB
    if inode == 0 and path not in _ANON_NAMES and not path.startswith(("[anon:", "[stack:")):
        return Backing.SPECIAL  # mm/mmap.c:special_mapping_name, gate_vma
    if vmflags & {"pf", "io"}:
        return Backing.PFNMAP
    if inode == 0:
        return Backing.SHMEM if perms[3] == "s" else Backing.ANON
    if path == "/dev/zero" and perms[3] == "p":
        return Backing.ANON  # drivers/char/mem.c:mmap_zero leaves vm_file, but no vm_ops
    if path.startswith(_PSEUDO_FILES):
        return Backing.SPECIAL
    if node or not path.startswith(("/", "[anon_shmem:")):
        return Backing.DEVICE
    if dev == _shm_mnt() or kind in ("tmpfs", "devtmpfs"):
        return Backing.DEVICE if "mm" in vmflags else Backing.SHMEM
    if vmflags & {"mm", "sf"} or options & {"dax", "dax=always"}:
        return Backing.DAX
    return Backing.FILE


def _is_node(directory: int, path: str) -> bool:
    """Say whether a path in the /dev of a process is a device node, as far as one can see."""
    if not path.startswith("/dev/") or path == "/dev/zero (deleted)":  # the latter: shmem
        return False
    try:
        return not stat.S_ISREG(os.stat(f"root{path}", dir_fd=directory).st_mode)
    except OSError:
        return not path.startswith("/dev/shm/")


def _ranges(mappings: Sequence[Mapping], start: int = 0, end: int = 1 << 64) -> U64:
    """Return the user-space ranges of `mappings` within [start, end); [vsyscall] is not one."""
    user = [m for m in mappings if m.end <= 1 << 63 and m.start < end and m.end > start]
    ranges = [(max(m.start, start), min(m.end, end)) for m in user]
    return np.array(ranges, dtype=np.uint64).reshape(-1, 2)


def _entries_or_none(directory: int, mappings: Sequence[Mapping], scan: bool) -> Entries | None:
    """Read the entries of `mappings`; None when their address space died under the reader."""
    ranges = _ranges(mappings)
    with Pagemap.open(directory) as pagemap:
        try:
            entries = pagemap.entries(ranges, scan=scan)
            for start in ranges[:1, 0].tolist():  # the scan of a dead one is empty, not refused
                pagemap.words(start, PAGE_SIZE)
        except ProcessLookupError:
            return None
    return entries


def _held_still(
    before: Sequence[Mapping], after: Sequence[Mapping]
) -> tuple[list[Mapping], list[Mapping]]:
    """Return what of `before` is in `after` with equal attributes, and which of it is not whole."""
    kept: list[Mapping] = []
    changed: list[Mapping] = []
    starts = [m.start for m in after]
    for old in before:
        pieces = []
        at = max(bisect_right(starts, old.start) - 1, 0)
        while at < len(after) and after[at].start < old.end:
            start, end = max(old.start, after[at].start), min(old.end, after[at].end)
            if start < end and _attributes(old) == _attributes(after[at]):
                offset = old.offset + start - old.start if old.inode else 0
                pieces.append(replace(old, start=start, end=end, offset=offset))
            at += 1
        if sum(piece.length for piece in pieces) == old.length:
            kept.append(old)
        else:
            kept += pieces
            changed.append(old)
    return kept, changed


def _attributes(m: Mapping) -> tuple[object, ...]:
    """Return what two parts of one VMA have in common."""
    origin = m.offset - m.start if m.inode else 0
    return m.perms, m.dev, m.inode, m.path, m.vmflags, origin
