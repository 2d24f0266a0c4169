"""Mappings of real and of written-down processes, and reading one while it changes."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from live_processes import child, drop_capabilities, in_thread
from ptwalk import procfs
from ptwalk.errors import InvalidArgument, LiveError
from ptwalk.pagemap import PAGE_SIZE, PM_PRESENT, PM_SOFT_DIRTY, U64, Entries, Pagemap
from ptwalk.procfs import Backing, Mapping, read_entries, read_mappings, read_process

SIZE = 16 * PAGE_SIZE
NUMPY = "import numpy\nprint(numpy.__name__, flush=True)"


def address(memory: mmap.mmap) -> int:
    return int(np.frombuffer(memory, dtype=np.uint8).ctypes.data)


def mapping_at(where: int, mappings: list[Mapping]) -> Mapping:
    return next(m for m in mappings if m.start <= where < m.end)


# --- real processes -----------------------------------------------------------------------------


@pytest.mark.parametrize("scan", [True, False])
def test_a_process_with_numpy_has_the_present_pages_of_its_pagemap(scan: bool) -> None:
    with child(NUMPY) as it:
        image = read_process(it.pid, scan=scan)
        assert (image.attempts, image.changed) == (1, ())
        pages: list[tuple[int, int]] = []
        with Path(f"/proc/{it.pid}/pagemap").open("rb") as file:
            for m in image.mappings:
                if m.end > 1 << 63:  # [vsyscall]
                    continue
                file.seek(m.start // PAGE_SIZE * 8)
                words = np.frombuffer(file.read(m.length // PAGE_SIZE * 8), dtype=np.uint64)
                full = (words & np.uint64(~PM_SOFT_DIRTY % 2**64)) != 0
                pages += [(m.start + int(i) * PAGE_SIZE, int(words[i])) for i in full.nonzero()[0]]
        columns = image.entries.address.tolist(), image.entries.word.tolist()
        assert list(zip(*columns, strict=True)) == pages
        assert image.entries.present == sum(word >> 63 for _, word in pages) > 1000
        assert sum(len(image.entries.within(m.start, m.end)) for m in image.mappings) == len(pages)


def test_mappings_are_those_of_maps() -> None:
    with child(NUMPY) as it:
        lines = Path(f"/proc/{it.pid}/maps").read_text().splitlines()
        mappings = read_mappings(it.pid)
    assert len(lines) > 50
    for line, m in zip(lines, mappings, strict=True):
        where, perms, offset, dev, inode, *path = line.split(maxsplit=5)
        assert where == f"{m.start:08x}-{m.end:08x}"
        assert (perms, int(offset, 16), int(inode)) == (m.perms, m.offset, m.inode)
        assert dev == f"{os.major(m.dev):02x}:{os.minor(m.dev):02x}"
        assert "".join(path) == m.path
        assert ("rd" in m.vmflags) == (perms[0] == "r")
    by_name = {m.path: m.backing for m in mappings}
    assert by_name["[heap]"] == by_name["[stack]"] == Backing.ANON
    assert by_name["[vdso]"] == Backing.SPECIAL
    assert by_name[os.path.realpath("/proc/self/exe")] == Backing.FILE


def file_of(path: Path) -> int:
    path.write_bytes(bytes(SIZE))
    return os.open(path, os.O_RDWR)


SHARED, PRIVATE = mmap.MAP_SHARED, mmap.MAP_PRIVATE
KINDS: dict[str, tuple[Callable[[Path], int], int, Backing]] = {
    "private anonymous": (lambda _: -1, PRIVATE | mmap.MAP_ANONYMOUS, Backing.ANON),
    "shared anonymous": (lambda _: -1, SHARED | mmap.MAP_ANONYMOUS, Backing.SHMEM),
    "private /dev/zero": (lambda _: os.open("/dev/zero", os.O_RDWR), PRIVATE, Backing.ANON),
    "shared /dev/zero": (lambda _: os.open("/dev/zero", os.O_RDWR), SHARED, Backing.SHMEM),
    "shared memfd": (lambda _: os.memfd_create("x"), SHARED, Backing.SHMEM),
    "private memfd": (lambda _: os.memfd_create("x"), PRIVATE, Backing.SHMEM),
    "shared file": (file_of, SHARED, Backing.FILE),
    "private file": (file_of, PRIVATE, Backing.FILE),
}


@pytest.mark.parametrize("kind", KINDS)
def test_backing_of_a_mapping(kind: str, tmp_path: Path) -> None:
    make, flags, backing = KINDS[kind]
    if backing is Backing.FILE and in_memory(tmp_path):
        backing = Backing.SHMEM
    fd = make(tmp_path / "file")
    if "memfd" in kind:
        os.ftruncate(fd, SIZE)
    with mmap.mmap(fd, SIZE, flags) as memory:
        start = address(memory)
        m = mapping_at(start, read_mappings(os.getpid()))
        assert m.backing == backing
        assert m.backing.ordinary
        assert m.shared == bool(flags & SHARED)
        if "file" in kind or "memfd" in kind:
            status = os.fstat(fd)
            assert (m.dev, m.inode) == (status.st_dev, status.st_ino)
    if fd >= 0:
        os.close(fd)


def in_memory(path: Path) -> bool:
    """Whether a path is on a tmpfs, where mounts are listed as the last that holds it."""
    mounts = [line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines()]
    holding = [(len(at), i, kind) for i, (at, kind) in enumerate(mounts) if path.is_relative_to(at)]
    return max(holding)[2] == "tmpfs"


def test_entries_of_a_range_of_this_process() -> None:
    with mmap.mmap(-1, SIZE, PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        start = address(memory)
        for i in (1, 2, 5):
            memory[i * PAGE_SIZE] = 1
        entries = read_entries(os.getpid(), start, start + SIZE)
        assert (entries.address - start).tolist() == [PAGE_SIZE, 2 * PAGE_SIZE, 5 * PAGE_SIZE]
        assert entries.present == 3
        part = read_entries(os.getpid(), start + 2 * PAGE_SIZE, start + 5 * PAGE_SIZE)
        assert (part.address - start).tolist() == [2 * PAGE_SIZE]


def test_this_process_holds_still_while_it_reads_itself() -> None:
    image = read_process(os.getpid(), attempts=10)
    assert image.changed == ()
    assert image.entries.present > 1000


def test_page_frame_numbers_are_hidden_without_privilege() -> None:
    entries = in_thread(drop_capabilities, lambda: read_entries(os.getpid()))
    assert entries.present > 1000
    assert not entries.pfn_visible


# --- written-down processes ---------------------------------------------------------------------

MOUNTINFO = """\
24 27 0:6 / /dev rw,relatime - devtmpfs devtmpfs rw,size=1k
25 24 0:23 / /dev/shm rw,relatime shared:4 - tmpfs tmpfs rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
28 27 259:1 / /pmem rw,relatime - ext4 /dev/pmem0 rw,dax=always
29 27 259:2 / /lazy rw,relatime - xfs /dev/vdb rw,dax=never
"""

RECORDS = [
    ("rw-p 00000000 00:00 0 ", "rd wr ac", Backing.ANON),
    ("rw-p 00000000 00:00 0                          [heap]", "rd wr ac", Backing.ANON),
    ("rw-p 00000000 00:00 0                          [anon:malloc x]", "rd wr", Backing.ANON),
    ("rw-p 00000000 00:00 0                          [stack]", "rd wr gd ac", Backing.ANON),
    ("rw-p 00000000 00:00 0 ", "rd wr ss", Backing.ANON),
    ("rw-s 00000000 00:06 4                          /dev/zero (deleted)", "sh", Backing.SHMEM),
    ("rw-p 00000000 00:06 4                          /dev/zero", "rd wr ac", Backing.ANON),
    ("rw-s 00000000 00:17 9                          /dev/shm/a b", "sh", Backing.SHMEM),
    ("rw-s 00000000 fe:00 9                          /a\\012b (deleted)", "sh", Backing.FILE),
    ("rw-s 00000000 103:02 9                         /lazy/f", "sh", Backing.FILE),
    ("rw-s 00000000 103:01 9                         /pmem/f", "sh hg", Backing.DAX),
    ("rw-s 00000000 fe:00 9                          /old/pmem", "sh mm", Backing.DAX),
    ("rw-s 00000000 fe:00 9                          /sync/pmem", "sh sf", Backing.DAX),
    ("rw-s 00000000 00:10 9                          /anon_hugepage", "sh ht", Backing.HUGETLB),
    ("rw-p 00000000 00:00 0                          ", "rd wr ht", Backing.HUGETLB),
    ("rw-s 00000000 00:06 9                          /dev/no-such-node", "sh", Backing.DEVICE),
    ("rw-s 00000000 00:06 9                          /dev/mem", "sh pf io", Backing.PFNMAP),
    ("rw-s 00000000 00:0f 9                          anon_inode:kvm-vcpu:0", "sh", Backing.DEVICE),
    ("rw-s 00000000 00:08 9                          socket:[41]", "sh mm", Backing.DEVICE),
    ("rw-s 00000000 00:12 9                          /[aio] (deleted)", "sh de", Backing.SPECIAL),
    ("rw-s 00000000 00:13 9                          /secretmem", "sh lo", Backing.SPECIAL),
    ("r--p 00000000 00:00 0                          [vvar]", "rd pf io", Backing.SPECIAL),
    ("r-xp 00000000 00:00 0                          [vdso]", "rd ex", Backing.SPECIAL),
    ("--xp 00000000 00:00 0                          [vsyscall]", "ex", Backing.SPECIAL),
]


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Callable[[str], list[Mapping]]]:
    """Parse a smaps text in a directory made like /proc/PID."""
    (tmp_path / "mountinfo").write_text(MOUNTINFO)
    directory = os.open(tmp_path, os.O_RDONLY)

    def parse(smaps: str) -> list[Mapping]:
        (tmp_path / "smaps").write_text(smaps)
        return procfs._mappings(directory, 7)

    yield parse
    os.close(directory)


@pytest.mark.parametrize(("record", "flags", "backing"), RECORDS)
def test_backing_of_a_record(
    written: Callable[[str], list[Mapping]], record: str, flags: str, backing: Backing
) -> None:
    text = f"7f00000000-7f00002000 {record}\nSize: 8 kB\nRss: 0 kB\nVmFlags: {flags} \n"
    (m,) = written(text)
    assert (m.start, m.end, m.length) == (0x7F00000000, 0x7F00002000, 0x2000)
    assert m.vmflags == frozenset(flags.split())
    assert m.path == (record[45:].lstrip() if len(record) > 45 else "")
    assert m.backing == backing


def test_shared_anonymous_memory_is_known_by_the_kernels_own_tmpfs(
    written: Callable[[str], list[Mapping]],
) -> None:
    dev = procfs._shm_mnt()
    device = f"{os.major(dev):02x}:{os.minor(dev):02x}"
    for name in ("/memfd:x (deleted)", "/SYSV00000000 (deleted)", "[anon_shmem:ring]"):
        (m,) = written(f"1000-2000 rw-s 00000000 {device} 12      {name}\nVmFlags: rd wr sh\n")
        assert (m.backing, m.path, m.inode) == (Backing.SHMEM, name, 12)
    (m,) = written(f"1000-2000 rw-s 00000000 {device} 12  /i915 (deleted)\nVmFlags: rd sh mm\n")
    assert m.backing == Backing.DEVICE


def test_a_mapping_prints_as_a_line_of_maps(written: Callable[[str], list[Mapping]]) -> None:
    (m,) = written("7f0000-7f1000 rw-p 00000000 00:00 0     [heap]\nVmFlags: rd wr\n")
    assert str(m) == "0x00000000007f0000-0x00000000007f1000 rw-p anon    [heap]"


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize("pid", [0, -1, True, "self", 1.0])
def test_a_pid_that_is_none(pid: int) -> None:
    with pytest.raises(InvalidArgument, match="is not a positive int"):
        read_mappings(pid)


def test_a_range_that_is_none() -> None:
    with pytest.raises(InvalidArgument, match="start 0x0000000000000123 is not page aligned"):
        read_entries(os.getpid(), 0x123, 0x2000)
    for start, end in ((0x2000, 0x1000), (-PAGE_SIZE, 0), (0, 1 << 65)):
        with pytest.raises(InvalidArgument, match="reversed or outside"):
            read_entries(os.getpid(), start, end)
    with pytest.raises(InvalidArgument, match="attempts 0"):
        read_process(os.getpid(), attempts=0)


@pytest.mark.parametrize("read", [read_mappings, read_entries, read_process])
def test_a_process_that_has_gone(read: Callable[[int], object]) -> None:
    with child("print(flush=True)") as it:
        it.process.kill()
        it.process.wait()
        with pytest.raises(LiveError, match="does not exist, has exited") as caught:
            read(it.pid)
    assert caught.value.errno == errno.ESRCH


def test_a_zombie_has_no_address_space() -> None:
    with child("print(flush=True)") as it:
        it.tell()
        os.waitid(os.P_PID, it.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(LiveError, match="has no address space") as caught:
            read_process(it.pid)
    assert caught.value.errno == errno.ESRCH


UNDUMPABLE = "import ctypes\nctypes.CDLL(None).prctl(4, 0, 0, 0, 0)\nprint(flush=True)"


@pytest.mark.parametrize("read", [read_mappings, read_entries, read_process])
def test_a_process_that_may_not_be_read(read: Callable[[int], object]) -> None:
    with child(UNDUMPABLE) as it, pytest.raises(LiveError, match="PTRACE_MODE_READ") as caught:
        in_thread(drop_capabilities, lambda: read(it.pid))
    assert caught.value.errno == errno.EPERM


# --- a process that changes under the reader ----------------------------------------------------


def between(monkeypatch: pytest.MonkeyPatch, change: Callable[[int], None]) -> None:
    """Call `change` with the number of the attempt, before the entries are read."""
    original = Pagemap.entries
    attempt = 0

    def entries(self: Pagemap, ranges: U64, *, scan: bool = True) -> Entries:
        nonlocal attempt
        attempt += 1
        change(attempt)
        return original(self, ranges, scan=scan)

    monkeypatch.setattr(Pagemap, "entries", entries)


MOVER = """
import mmap, ctypes
size = 16 * 4096
flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
libc = ctypes.CDLL(None)
where = ctypes.c_void_p(0x200000000000)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.mmap(where, size, 3, flags | 16, -1, 0)
ctypes.memset(where, 1, size)
print(flush=True)
while sys.stdin.readline():
    {change}
    print(flush=True)
"""
WHERE = 0x200000000000


def test_a_mapping_that_shrinks_once_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with child(MOVER.format(change="libc.munmap(where, size // 2)")) as it:

        def change(attempt: int) -> None:
            if attempt == 1:
                it.tell()
                it.listen()

        between(monkeypatch, change)
        image = read_process(it.pid)
    assert (image.attempts, image.changed) == (2, ())
    m = mapping_at(WHERE + SIZE // 2, list(image.mappings))
    assert (m.start, m.length) == (WHERE + SIZE // 2, SIZE // 2)
    assert image.entries.within(WHERE, WHERE + SIZE).present == 8


def test_a_mapping_that_never_holds_still_is_named_and_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    toggle = "size -= 4096; libc.munmap(ctypes.c_void_p(where.value + size), 4096)"
    with child(MOVER.format(change=toggle)) as it:

        def change(_: int) -> None:
            it.tell()
            it.listen()

        between(monkeypatch, change)
        image = read_process(it.pid, attempts=3)
    assert image.attempts == 3
    (changed,) = image.changed
    assert (changed.start, changed.length) == (WHERE, 14 * PAGE_SIZE)
    m = mapping_at(WHERE, list(image.mappings))
    assert m.length == 13 * PAGE_SIZE
    assert image.entries.within(WHERE, WHERE + SIZE).present == 13


def test_a_new_mapping_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    more = "ctypes.memset(libc.mmap(where.value + size, size, 3, flags | 16, -1, 0), 1, size)"
    with child(MOVER.format(change=more)) as it:

        def change(_: int) -> None:
            it.tell()
            it.listen()

        between(monkeypatch, change)
        image = read_process(it.pid)
    assert (image.attempts, image.changed) == (1, ())
    assert mapping_at(WHERE, list(image.mappings)).length == SIZE
    assert image.entries.within(WHERE, WHERE + 2 * SIZE).present == 16


def test_execve_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    again = "import os; os.execv(sys.executable, [sys.executable, '-c', 'print(flush=1); input()'])"
    with child(MOVER.format(change=again)) as it:

        def change(attempt: int) -> None:
            if attempt == 1:
                it.tell()
                it.listen()

        between(monkeypatch, change)
        image = read_process(it.pid)
    assert (image.attempts, image.changed) == (2, ())
    assert not any(m.start == WHERE for m in image.mappings)
    assert image.entries.count(PM_PRESENT) > 500


def test_a_process_that_exits_while_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with child("print(flush=True)") as it:

        def change(_: int) -> None:
            it.process.kill()
            it.process.wait()

        between(monkeypatch, change)
        with pytest.raises(LiveError) as caught:
            read_process(it.pid)
    assert caught.value.errno == errno.ESRCH
