"""Reading running processes: page for page what their pagemap says, and what cannot be read."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import ptwalk
import pytest
from live_processes import Child, child, drop_capabilities, in_thread
from ptwalk import AddressSpace, LiveError, live, procfs
from ptwalk.pagemap import PM_PFRAME_MASK, U64
from ptwalk.procfs import read_process

PAGE = 4096
FLAGS_SHIFT = 55  # bits of a pagemap word from here on are flags
BIT_63 = np.uint64(1 << 63)
READY = "print('ready', flush=True)"


def readable() -> str | None:
    """Say why this process cannot read its own pagemap, None if it can."""
    try:
        with Path("/proc/self/pagemap").open("rb") as file:
            file.read(8)
    except OSError as e:
        return f"/proc/self/pagemap: {e.strerror}"
    return None


pytestmark = pytest.mark.skipif(readable() is not None, reason=str(readable()))


def pagemap(pid: int, start: int, length: int) -> U64:
    """Return words of the pagemap, read plainly."""
    with Path(f"/proc/{pid}/pagemap").open("rb") as file:
        file.seek(start // PAGE * 8)
        return np.frombuffer(file.read(length // PAGE * 8), dtype=np.uint64)


def totals(mm: AddressSpace) -> Counter[str]:
    """Return the pages of all VMAs by kind of entry."""
    total: Counter[str] = Counter()
    for vma in mm.vmas:
        total.update(mm.count(vma.start, vma.length))
    return total


def check(it: Child) -> live.LiveRead:
    """Read a child; compare each page with its pagemap, and the VMAs with maps."""
    os.kill(it.pid, signal.SIGSTOP)
    os.waitpid(it.pid, os.WUNTRACED)
    read = live.read(it.pid)
    mm, report = read
    present = 0
    for vma in mm.vmas:
        real = pagemap(it.pid, vma.start, vma.length)
        ours = mm.pagemap(vma.start, vma.length)
        where = (real >> np.uint64(FLAGS_SHIFT)) != (ours >> np.uint64(FLAGS_SHIFT))
        assert not where.any(), (vma, hex(real[where][0]), hex(ours[where][0]))
        present += int(np.count_nonzero(real & BIT_63))
    assert totals(mm)["present"] == report.present == present
    assert mm.validate() == []
    assert maps(it.pid) == [(v.start, v.end, v.permissions, v.name) for v in mm.vmas]
    assert report.vmas == len(mm.vmas)
    assert (report.changed, report.attempts) == ((), 1)
    return read


def maps(pid: int) -> list[tuple[int, int, str, str]]:
    found = []
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        where, perms, _, _, _, *path = line.split(maxsplit=5)
        start, end = (int(text, 16) for text in where.split("-"))
        if end < 1 << 63:
            found.append((start, end, perms, "".join(path)))
    return found


def vma_at(mm: AddressSpace, address: int) -> ptwalk.Vma:
    return next(vma for vma in mm.vmas if vma.start <= address < vma.end)


MAP = """
import ctypes, mmap, os
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
def map(length, prot=3, flags=0x22, fd=-1, offset=0):
    return libc.mmap(None, length, prot, flags, fd, offset)
def touch(address, pages=1, value=b"x"):
    for page in range(pages):
        ctypes.memmove(address + page * 4096, value, 1)
def load(address):
    return ctypes.string_at(address, 1)
def say(*numbers):
    print(*numbers, flush=True)
"""


def numbers(it: Child) -> list[int]:
    return [int(text) for text in it.line.split()]


def test_a_process_with_numpy() -> None:
    with child(f"import numpy\n{READY}") as it:
        mm, report = check(it)
    assert report.present > 1000
    assert mm.profile == report.profile == live.nearest_profile(os.uname().release)
    names = {vma.name: vma for vma in mm.vmas}
    assert names["[heap]"].kind == names["[stack]"].kind == "anon"
    assert names["[vdso]"].kind == names["[vvar]"].kind == "other"
    assert names[os.path.realpath(sys.executable)].kind == "regular"
    assert any("[vsyscall]" in text for text in report.left_out)
    one = {id(vma.file) for vma in mm.vmas if "libc.so" in vma.name}
    assert len(one) == 1


def test_this_process() -> None:
    mm, report = ptwalk.live.read(os.getpid())
    assert totals(mm)["present"] == report.present
    assert mm.validate() == []


def test_a_process_does_not_see_the_memory_of_the_space_it_reads_into() -> None:
    mm, _ = live.read(os.getpid())
    again, _ = live.read(os.getpid())
    before, after = (sum(v.length for v in space.vmas) for space in (mm, again))
    assert after - before < 1.5 * (
        1 << 36
    )  # the reserved frames of `mm`, which is alive; no others


def test_the_report() -> None:
    _, report = live.read(os.getpid())
    first, second, *_ = str(report).splitlines()
    assert first.startswith(
        f"live: pid {os.getpid()}, profile {report.profile}, {report.vmas} VMAs"
    )
    assert f"{report.present} pages present, {report.swapped} swapped; seen: present, sw" in first
    assert second.startswith("inferred: RW and D (from the VMA), ")
    assert report.as_dict()["present"] == report.present
    assert ("pfn" in report.seen) != any(text.startswith("pfn") for text in report.inferred)


def test_flags_come_from_the_vma() -> None:
    with child(
        f"{MAP}\na = map(8192)\nlibc.mlock(ctypes.c_void_p(a), 4096)\n"
        "libc.madvise(ctypes.c_void_p(a), 4096, 10)\nsay(a)"
    ) as it:
        mm, _ = check(it)
        (address,) = numbers(it)
    locked = vma_at(mm, address)
    assert locked.vm_flags & ptwalk.VM_LOCKED
    assert locked.vm_flags & ptwalk.VM_DONTCOPY
    assert locked.length == PAGE
    assert locked.page_prot & 0xFFF == 0x25


def test_a_file_mapped_twice_is_one_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(8 * PAGE))
    with child(
        f"{MAP}\nfd = os.open({str(tmp_path / 'file')!r}, os.O_RDWR)\n"
        "a, b = map(32768, 3, 1, fd), map(16384, 3, 1, fd, 16384)\n"
        "c = map(32768, 3, 2, fd)\ntouch(a, 8)\ntouch(b, 2)\ntouch(c)\nload(c + 16384)\n"
        "say(a, b, c)"
    ) as it:
        mm, report = check(it)
        a, b, c = numbers(it)
    shared, private = vma_at(mm, a), vma_at(mm, c)
    assert shared.file is not None
    assert shared.file is vma_at(mm, b).file is private.file
    assert (shared.kind, shared.permissions, private.permissions) == ("regular", "rw-s", "rw-p")
    assert vma_at(mm, b).offset == 4 * PAGE
    frames = {address: mm.pages(address, PAGE)[0] for address in (a, a + 4 * PAGE, b, c)}
    assert frames[b]["serial"] == frames[a + 4 * PAGE]["serial"] != frames[a]["serial"]
    assert frames[c]["serial"] != frames[a]["serial"]  # a private copy
    assert mm.translate([b])[0] == mm.translate([a + 4 * PAGE])[0]
    assert shared.file.cached_pages.tolist()[:8] == list(range(8))
    writable = mm.decode(mm.ptes(c, 5 * PAGE))["write"]
    assert (writable[0], writable[4]) == (True, False)
    assert report.files == len({id(v.file) for v in mm.vmas if v.file})


def test_shared_memory_is_shmem() -> None:
    with child(
        f"{MAP}\nfd = os.memfd_create('guest')\nos.ftruncate(fd, 65536)\n"
        "a, b, c = map(65536, 3, 1, fd), map(65536, 1, 1, fd), map(65536, 3, 0x21)\n"
        "touch(a, 4)\nload(b)\ntouch(c)\nsay(a, b, c)"
    ) as it:
        mm, _ = check(it)
        a, b, c = numbers(it)
    one, two, other = (vma_at(mm, address) for address in (a, b, c))
    assert [vma.kind for vma in (one, two, other)] == ["shmem"] * 3
    assert one.file is two.file
    assert other.file is not one.file
    assert one.name == "/memfd:guest (deleted)"
    assert mm.pages(a, PAGE)["mapcount"][0] == 2
    assert mm.count(a, 65536) == {"none": 12, "present": 4}


def test_pages_shared_by_fork_are_not_exclusive() -> None:
    with child(
        f"{MAP}\na = map(65536)\ntouch(a, 16)\n"
        "pid = os.fork()\nif pid == 0: os.kill(os.getpid(), 19)\n"
        "os.waitpid(pid, os.WUNTRACED)\ntouch(a, 4, b'y')\nsay(a, pid)"
    ) as it:
        address, grandchild = numbers(it)
        try:
            mm, _ = check(it)
        finally:
            os.kill(grandchild, signal.SIGKILL)
    entries = mm.decode(mm.ptes(address, 65536))
    assert entries["write"].tolist() == [True] * 4 + [False] * 12
    assert entries["dirty"].all()
    assert mm.pages(address, 65536)["mapcount"].tolist() == [1] * 4 + [2] * 12


def test_zero_pages_prot_none_and_holes() -> None:
    with child(
        f"{MAP}\na = map(65536)\nload(a)\ntouch(a + 8192)\n"
        "b = map(8192)\ntouch(b)\nlibc.mprotect(ctypes.c_void_p(b), 8192, 0)\nsay(a, b)"
    ) as it:
        mm, report = check(it)
        a, b = numbers(it)
    words = mm.ptes(a, 3 * PAGE) & ~np.uint64(0xFFFFFFFFFF000)
    assert [hex(word) for word in words] == ["0x8000000000000225", "0x0", "0x8000000000000067"]
    assert report.zero >= 1
    assert mm.decode(mm.ptes(b, PAGE))["kind"][0] == ptwalk.Kind.PRESENT
    assert mm.ptes(b, PAGE)[0] & np.uint64(0x101) == 0x100
    assert vma_at(mm, b).permissions == "---p"


GUARD = f"{MAP}\na = map(16384)\ntouch(a, 4)\nsay(a, libc.madvise(ctypes.c_void_p(a), 8192, 102))"


def test_guard_regions_are_markers() -> None:
    with child(GUARD) as it:
        address, refused = numbers(it)
        if refused:
            pytest.skip("MADV_GUARD_INSTALL is refused: the kernel is older than 6.13")
        mm, report = check(it)
    assert mm.count(address, 4 * PAGE) == {"marker": 2, "present": 2}
    assert report.markers == 2
    assert mm.access(address, write=False).outcome == "signal"


def test_write_protected_pages_are_armed() -> None:
    from ptwalk import running_kernel

    if refused := running_kernel.available():
        pytest.skip(refused)
    with running_kernel.KernelSpace() as kernel:
        start = kernel.mmap(16 * PAGE, "memfd")
        kernel.access(start, write=True)
        kernel.register(start, 16 * PAGE)
        kernel.writeprotect(start, 16 * PAGE, protect=True)
        mm, report = live.read(os.getpid())
        real = kernel.pagemap(start, 16 * PAGE)
        ours = mm.pagemap(start, 16 * PAGE)
    assert (real >> np.uint64(FLAGS_SHIFT) == ours >> np.uint64(FLAGS_SHIFT)).all()
    assert mm.count(start, 16 * PAGE) == {"marker": 15, "present": 1}
    assert mm.decode(mm.ptes(start, 16 * PAGE))["uffd_wp"].all()
    assert not mm.decode(mm.ptes(start, PAGE))["write"].any()
    assert vma_at(mm, start).vm_flags & ptwalk.VM_UFFD_WP
    assert any(text.startswith("the userfaultfds of 1 ") for text in report.left_out)
    assert mm.validate() == []


def test_huge_leaves_become_small_entries() -> None:
    code = (
        f"{MAP}\na = (map(8 << 20) + (2 << 20) - 1) & -(2 << 20)\n"
        "libc.madvise(ctypes.c_void_p(a), 4 << 20, 14)\ntouch(a)\nsay(a)"
    )
    with child(code) as it:
        (address,) = numbers(it)
        entries = procfs.read_entries(it.pid, address, address + (2 << 20))
        if entries.huge is None or not entries.huge.all() or len(entries) != 512:
            pytest.skip("the kernel gave no huge page, or does not say so")
        mm, report = check(it)
    assert mm.count(address, 2 << 20) == {"present": 512}
    assert report.huge >= 512
    assert "512 pages under huge leaves" in str(report)


def test_a_reserved_terabyte_costs_nothing() -> None:
    with child(
        f"{MAP}\na = map(1 << 40, 3, 0x4022)\n"
        "for i in range(700): touch(a + (i << 30) + (1 << 21))\nsay(a)"
    ) as it:
        (address,) = numbers(it)
        mm, report = live.read(it.pid)
    assert mm.count(address, 1 << 40) == {"none": (1 << 28) - 700, "present": 700}
    assert mm.stats.tables_modelled < 3000
    assert totals(mm)["present"] == report.present


def test_many_vmas() -> None:
    with child(
        f"{MAP}\na = map(4096 * 4000)\ntouch(a, 4000)\n"
        "for i in range(0, 4000, 2): libc.mprotect(ctypes.c_void_p(a + i * 4096), 4096, 1)\nsay(a)"
    ) as it:
        _, report = check(it)
    assert report.vmas > 4000


def test_the_space_can_be_worked_on() -> None:
    with child(f"{MAP}\na = map(65536)\ntouch(a, 8)\nsay(a)") as it:
        (address,) = numbers(it)
        mm, _ = live.read(it.pid)
    assert mm.mprotect(address, 65536, "r--").present == 8
    assert mm.access(address, write=True).outcome == "signal"
    mm.mprotect(address, 65536, "rw-")
    assert mm.access(address + 12 * PAGE, write=True).outcome == "done"
    for vma in mm.vmas:
        mm.munmap(vma.start, vma.length)
    assert mm.vmas == []
    assert mm.validate() == []


@pytest.mark.parametrize("profile", ptwalk.profiles())
def test_every_profile(profile: str) -> None:
    with child(READY) as it:
        mm, report = live.read(it.pid, profile=profile)
    assert mm.profile == report.profile == profile
    assert totals(mm)["present"] == report.present
    assert mm.validate() == []


def test_without_pagemap_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "read_process", partial(read_process, scan=False))
    with child(f"{MAP}\na = map(65536)\nload(a)\ntouch(a + 8192)\nsay(a)") as it:
        (address,) = numbers(it)
        mm, report = check(it)
    assert "zero page (from its pfn)" in report.inferred
    assert not {"zero page", "huge"} & set(report.seen)
    special = mm.ptes(address, PAGE)[0] & np.uint64(0x200) != 0
    assert special == ("pfn" in report.seen)


def test_a_reader_without_capabilities_sees_no_pfn() -> None:
    def unprivileged() -> live.LiveRead:
        return live.read(os.getpid())

    (mm, report) = in_thread(drop_capabilities, unprivileged)
    assert "pfn (hidden without CAP_SYS_ADMIN)" in report.inferred
    assert "pfn" not in report.seen
    assert totals(mm)["present"] == report.present > 0
    assert mm.validate() == []


def test_frames_are_those_of_a_privileged_reader() -> None:
    with child(f"{MAP}\na = map(4096)\ntouch(a)\nsay(a)") as it:
        (address,) = numbers(it)
        mm, report = live.read(it.pid)
        pfn = int(pagemap(it.pid, address, PAGE)[0]) & PM_PFRAME_MASK
    if "pfn" not in report.seen:
        pytest.skip("pfns are hidden without CAP_SYS_ADMIN")
    assert mm.translate([address + 5])[0] == pfn << 12 | 5


def test_a_process_that_is_gone() -> None:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    with pytest.raises(LiveError, match=f"process {done.pid} ") as raised:
        live.read(done.pid)
    assert raised.value.errno == errno.ESRCH


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_a_process_of_another_user() -> None:
    code = (
        "import os, ptwalk, ptwalk.live\nos.setuid(65534)\n"
        f"try: ptwalk.live.read({os.getpid()})\n"
        "except ptwalk.LiveError as e: print(e.errno, e)"
    )
    source = str(Path(ptwalk.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": source},
    )
    assert done.stdout.startswith(f"{errno.EPERM} [Errno 1] EPERM: process {os.getpid()}: ")


def test_a_process_that_maps_while_it_is_read() -> None:
    code = (
        f"import threading\n{MAP}\n"
        "def churn():\n"
        "    while True:\n"
        "        a = map(1 << 20)\n"
        "        touch(a, 256)\n"
        "        libc.munmap(ctypes.c_void_p(a), 1 << 20)\n"
        "threading.Thread(target=churn, daemon=True).start()\nsay(0)"
    )
    with child(code) as it:
        for _ in range(10):
            mm, report = live.read(it.pid)
            assert totals(mm)["present"] == report.present
            assert mm.validate() == []
            assert bool(report.changed) == ("changed while it was read" in str(report))


@pytest.mark.parametrize(
    ("release", "profile"),
    [
        ("6.18.44", "6.18"),
        ("7.0-rc1", "6.18"),
        ("6.13.0-generic", "6.18"),
        ("6.12.41-amd64", "6.12"),
        ("6.2.0", "6.12"),
        ("6.1.0-30-amd64", "6.1"),
        ("5.19", "6.1"),
        ("5.15.0-91-generic", "5.12"),
        ("4.19.0", "5.12"),
        ("custom", "6.18"),
    ],
)
def test_the_nearest_profile(release: str, profile: str) -> None:
    assert live.nearest_profile(release) == profile


def test_bad_arguments() -> None:
    with pytest.raises(ptwalk.InvalidArgument, match="pid 0 is not a positive int"):
        live.read(0)
    with pytest.raises(ptwalk.InvalidArgument, match=r"profile '6\.66' is not known"):
        live.read(os.getpid(), profile="6.66")


def test_live_is_imported_when_it_is_asked_for() -> None:
    code = (
        "import sys, ptwalk\nassert 'ptwalk.live' not in sys.modules\n"
        "assert ptwalk.live.read and 'ptwalk.live' in sys.modules"
    )
    source = str(Path(ptwalk.__file__).parents[1])
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": source}
    )
