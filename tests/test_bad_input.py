"""Bad input: each a distinct error that names value, rule and remedy; nothing is changed by it.

What a system call judges is a KernelError with the kernel's errno, anything else InvalidArgument.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import numpy as np
import ptwalk
import pytest
from ptwalk import AddressSpace, InvalidArgument, KernelError, ShmemFile, Userfaultfd

BASE, PAGE, LENGTH = 0x7F0000000000, 4096, 2 << 20
END = 1 << 47
WORDS = np.zeros(4, np.uint64)


@pytest.fixture
def mm() -> AddressSpace:
    """Return a registered, partly present, partly armed shmem mapping under 6.18."""
    space = AddressSpace("6.18")
    space.mmap(BASE, LENGTH, "rw-", "shared", ShmemFile(LENGTH))
    space.access(BASE, write=True)
    space.userfaultfd().register(BASE, LENGTH, "wp")
    return space


def uffd_of(space: AddressSpace) -> Userfaultfd:
    number = space.vmas[0].uffd
    assert number is not None
    return Userfaultfd(space, number)


def state(space: AddressSpace) -> tuple[Any, ...]:
    tables = space.tables(copy=True)
    return space.vmas, space.stats, tables.tobytes(), space.pending


Call = Callable[[AddressSpace], object]

INVALID: list[tuple[str, Call]] = [
    (r"start -4096 is not an unsigned 64-bit integer", lambda mm: mm.munmap(-PAGE, PAGE)),
    (r"length -1 is not an unsigned", lambda mm: mm.mprotect(BASE, -1, "r--")),
    (r"addr \(a long int\) is not an unsigned", lambda mm: mm.access(10**9999, write=False)),
    (r"start 1\.5 is not an integer; pass an int", lambda mm: mm.ptes(1.5, PAGE)),  # type: ignore[arg-type]
    (r"start None is not an integer", lambda mm: mm.ptes(None, PAGE)),  # type: ignore[arg-type]
    (r"prot 4294967296 does not fit", lambda mm: mm.mprotect(BASE, PAGE, 1 << 32)),
    (r"prot 1\.5 is no flag word", lambda mm: mm.mprotect(BASE, PAGE, 1.5)),  # type: ignore[arg-type]
    (r"advice 'dontned' is not known; use normal", lambda mm: mm.madvise(BASE, PAGE, "dontned")),
    (
        r"mode 'write' is not known; use missing",
        lambda mm: uffd_of(mm).register(BASE, PAGE, "write"),
    ),
    (r"ptes: start 0x00007f0000000123 .*page_align_down", lambda mm: mm.ptes(BASE + 0x123, PAGE)),
    (r"ptes: length 0x0000000000000fff .*page_align$", lambda mm: mm.ptes(BASE, PAGE - 1)),
    (r"levels: start .* reach beyond", lambda mm: mm.levels(END, PAGE)),
    (r"count: .* reach beyond .*shorten", lambda mm: mm.count(BASE, (1 << 64) - PAGE)),
    (r"pagemap: start .* not page aligned", lambda mm: mm.pagemap(BASE + 1, PAGE)),
    (r"pages: .* reach beyond", lambda mm: mm.pages(0xFFFF800000000000, PAGE)),
    (
        r"walk: addr 0xffff800000000000 is not canonical user",
        lambda mm: mm.walk(0xFFFF800000000000),
    ),
    (r"walk: addr 0x0000800000000000 is not canonical user", lambda mm: mm.walk(END)),
    (r"out has dtype uint64 and shape \(2,\)", lambda mm: mm.translate([1], out=np.zeros(2, "u8"))),
    (r"addrs holds no addresses \(.*float", lambda mm: mm.translate([1.5])),  # type: ignore[list-item]
    (r"addrs holds no addresses", lambda mm: mm.translate([-1])),
    (r"addrs holds no addresses \(.*list", lambda mm: mm.translate([[1]])),  # type: ignore[list-item]
    (r"addrs has dtype int64 .* from 0 to", lambda mm: mm.translate(np.array([-1]))),
    (r"addrs has dtype float64", lambda mm: mm.translate(np.array([1.5]))),
    (r"addrs has .* shape \(1, 1\)", lambda mm: mm.translate(np.array([[1]]))),
    (r"out has dtype int64", lambda mm: mm.ptes(BASE, PAGE, out=np.empty(1, np.int64))),
    (r"out has .*shape \(2,\)", lambda mm: mm.ptes(BASE, PAGE, out=np.empty(2, np.uint64))),
    (r"out 7 is not an array", lambda mm: mm.ptes(BASE, PAGE, out=7)),  # type: ignore[arg-type]
    (
        r"out has .*writeable",
        lambda mm: mm.ptes(BASE, PAGE, out=np.frombuffer(bytes(8), np.uint64)),
    ),
    (
        r"ptes has dtype int64; page-table entries are uint64; use ptes.view\(numpy.uint64\)",
        lambda mm: mm.set_ptes(BASE, WORDS.astype(np.int64)),
    ),
    (
        r"ptes has dtype float32; .*ptes.astype\(numpy.uint64\)",
        lambda mm: mm.set_ptes(BASE, WORDS.astype(np.float32)),
    ),
    (r"ptes has dtype >u8", lambda mm: mm.set_ptes(BASE, WORDS.astype(">u8"))),
    (r"ptes has shape \(2,\) and is not a C-cont", lambda mm: mm.set_ptes(BASE, WORDS[::2])),
    (r"ptes has shape \(2, 2\)", lambda mm: mm.set_ptes(BASE, WORDS.reshape(2, 2))),
    (r"ptes is a list", lambda mm: mm.set_ptes(BASE, [0])),  # type: ignore[arg-type]
    (r"ptes has dtype int64", lambda mm: mm.decode(WORDS.astype(np.int64))),
    (r"level 'ptr' is not a level; use 'pte'", lambda mm: mm.entry(BASE, "ptr")),
    (r"level 9 is not a level", lambda mm: mm.entry(BASE, 9)),
    (r"no table of level 0x1 maps", lambda mm: mm.set_pte(BASE + (1 << 30), 0)),
    (
        r"0x0000000012345067 would point to frame 0x12345, which is no page-table frame",
        lambda mm: mm.set_entry(BASE + (1 << 30), "pud", 0x12345067),
    ),
    (r"is 0x.*67, not none; munmap its range", lambda mm: mm.alloc_table(BASE, "pmd")),
    (r"level 0x1 does not exist|no table", lambda mm: mm.alloc_table(BASE, "pte")),
    (r"set_vm_flags: no VMA holds", lambda mm: mm.set_vm_flags(BASE - PAGE, PAGE, add="io")),
    (r"add 'wp' is not known", lambda mm: mm.set_vm_flags(BASE, PAGE, add="wp")),
    (
        r"cp_flags 0xc hold both MM_CP_UFFD_WP and",
        lambda mm: mm.change_protection(BASE, BASE + PAGE, 0x25, "uffd_wp_all"),
    ),
    (
        r"cp_flags 0x100 hold a bit",
        lambda mm: mm.change_protection(BASE, BASE + PAGE, 0x25, 1 << 8),
    ),
    (r"ends before it starts", lambda mm: mm.change_protection(BASE + PAGE, BASE, 0x25)),
    (r"not page aligned", lambda mm: mm.change_protection(BASE, BASE + 1, 0x25)),
    (r"load_vma: end .* lies below", lambda mm: mm.load_vma(BASE, PAGE, 0, kind="anon")),
    (r"kind 'disk' is not known; use anon", lambda mm: mm.load_vma(0, PAGE, 0, kind="disk")),
    (r"offset 0x1 is not page aligned", lambda mm: mm.load_vma(0, PAGE, 0, kind="anon", offset=1)),
    (r"facts has 1 elements for 4", lambda mm: mm.load_pages(BASE, WORDS, np.zeros(1, np.uint8))),
    (r"flags is missing; with a file", lambda mm: mm.mmap(None, PAGE, "rw-", file=ShmemFile(PAGE))),
    (
        r"together with MAP_ANONYMOUS; drop one",
        lambda mm: mm.mmap(None, PAGE, "rw-", "shared|anonymous", ShmemFile(PAGE)),
    ),
    (
        r"file 3 is no file; pass a ShmemFile",
        lambda mm: mm.mmap(None, PAGE, "rw-", "shared", 3),  # type: ignore[arg-type]
    ),
    (
        r"HugetlbFile\(0x200000\) cannot be mapped .*: hugetlb is not modelled",
        lambda mm: mm.mmap(None, LENGTH, "rw-", "shared", ptwalk.HugetlbFile(LENGTH)),
    ),
    (r"number 99 is no userfaultfd of this", lambda mm: Userfaultfd(mm, 99)),
    (r"number 0 is no userfaultfd of this", lambda mm: Userfaultfd(AddressSpace(), 0)),
]


@pytest.mark.parametrize(("text", "call"), INVALID, ids=[text for text, _ in INVALID])
def test_invalid_argument(mm: AddressSpace, text: str, call: Call) -> None:
    before = state(mm)
    with pytest.raises(InvalidArgument, match=text):
        call(mm)
    assert state(mm) == before
    assert mm.validate() == []


KERNEL: list[tuple[int, str, Call]] = [
    (errno.EINVAL, r"start 0x00007f0000000001 is not page", lambda mm: mm.munmap(BASE + 1, PAGE)),
    (errno.EINVAL, r"munmap: length is 0", lambda mm: mm.munmap(BASE, 0)),
    (errno.EINVAL, r"mprotect: start .* not page", lambda mm: mm.mprotect(BASE + 1, PAGE, "r--")),
    (errno.ENOMEM, r"mprotect: ", lambda mm: mm.mprotect(BASE, (1 << 64) - PAGE, "r--")),
    (errno.ENOMEM, r"mprotect: nothing is mapped at", lambda mm: mm.mprotect(PAGE, PAGE, "r--")),
    (errno.EINVAL, r"mprotect: prot 0x100 has bits", lambda mm: mm.mprotect(BASE, PAGE, 0x100)),
    (errno.EINVAL, r"mmap: length is 0", lambda mm: mm.mmap(None, 0, "rw-")),
    (errno.ENOMEM, r"mmap: ", lambda mm: mm.mmap(None, END, "rw-")),
    (
        errno.EINVAL,
        r"mmap: start .* not page aligned",
        lambda mm: mm.mmap(BASE + 1, PAGE, "rw-", "private|anonymous|fixed"),
    ),
    (
        errno.EINVAL,
        r"mmap: offset 0x1 is not page aligned",
        lambda mm: mm.mmap(None, PAGE, "rw-", "shared", ShmemFile(PAGE), 1),
    ),
    (
        errno.EEXIST,
        r"overlaps a mapping and MAP_FIXED_NOREPLACE",
        lambda mm: mm.mmap(BASE, PAGE, "rw-", "private|anonymous|fixed_noreplace"),
    ),
    (
        errno.EACCES,
        r"needs a file opened for writing",
        lambda mm: mm.mmap(None, PAGE, "rw-", "shared", ShmemFile(PAGE, writable=False)),
    ),
    (errno.EBADF, r"neither a file nor MAP_ANON", lambda mm: mm.mmap(None, PAGE, "rw-", "shared")),
    (errno.EINVAL, r"advice 0x63 does not exist", lambda mm: mm.madvise(BASE, PAGE, 99)),
    (errno.EINVAL, r"features 0x.* hold 0x", lambda mm: mm.userfaultfd(1 << 40)),
    (errno.EINVAL, r"REGISTER: start .*not page", lambda mm: uffd_of(mm).register(1, PAGE, "wp")),
    (errno.EINVAL, r"REGISTER: mode 0x0", lambda mm: uffd_of(mm).register(BASE, PAGE, 0)),
    (errno.EINVAL, r"REGISTER: no VMA lies", lambda mm: uffd_of(mm).register(1 << 20, PAGE, "wp")),
    (errno.EINVAL, r"WRITEPROTECT: length is 0", lambda mm: uffd_of(mm).writeprotect(BASE, 0)),
    (
        errno.EINVAL,
        r"WRITEPROTECT: mode 0x3",
        lambda mm: uffd_of(mm).writeprotect(BASE, PAGE, wake=False),
    ),
    (errno.ENOENT, r"WRITEPROTECT: no VMA", lambda mm: uffd_of(mm).writeprotect(1 << 20, PAGE)),
    (
        errno.EINVAL,
        r"WRITEPROTECT: range of length 0x1000 .* leaves user memory",
        lambda mm: uffd_of(mm).writeprotect(END, PAGE),
    ),
    (errno.EINVAL, r"WAKE: length 0x1 is not", lambda mm: uffd_of(mm).wake(BASE, 1)),
]


@pytest.mark.parametrize(("number", "text", "call"), KERNEL, ids=[text for _, text, _ in KERNEL])
def test_kernel_error(mm: AddressSpace, number: int, text: str, call: Call) -> None:
    before = state(mm)
    with pytest.raises(KernelError, match=text) as caught:
        call(mm)
    assert caught.value.errno == number
    assert str(caught.value).startswith(f"[Errno {number}] {errno.errorcode[number]}: ")
    assert state(mm) == before


def test_closed_userfaultfd() -> None:
    mm = AddressSpace("6.18")
    with mm.userfaultfd() as uffd:
        pass
    assert uffd.closed
    calls: list[Callable[[], object]] = [
        lambda: uffd.register(BASE, PAGE, "wp"),
        lambda: uffd.unregister(BASE, PAGE),
        lambda: uffd.writeprotect(BASE, PAGE),
        lambda: uffd.wake(BASE, PAGE),
        lambda: uffd.copy(BASE, PAGE),
        lambda: uffd.zeropage(BASE, PAGE),
        lambda: uffd.continue_(BASE, PAGE),
        lambda: uffd.poison(BASE, PAGE),
        lambda: uffd.move(BASE, BASE + PAGE, PAGE),
        uffd.read,
    ]
    for call in calls:
        with pytest.raises(KernelError, match=r"EBADF.*userfaultfd is closed"):
            call()
    uffd.close()


@pytest.mark.parametrize(
    ("text", "make"),
    [
        ("profile '6.19' is not known; use one of 5.12", lambda: AddressSpace("6.19")),
        ("profile 6.18 is not a name", lambda: AddressSpace(6.18)),  # type: ignore[arg-type]
        ("levels 3 is not 4 or 5", lambda: AddressSpace(levels=3)),
        ("levels '4' is not an integer", lambda: AddressSpace(levels="4")),  # type: ignore[arg-type]
        ("config option 'KASAN' is not known", lambda: AddressSpace(config={"KASAN": True})),
        (
            "config 'MEM_SOFT_DIRTY' is 2; use True or False",
            lambda: AddressSpace(config={"MEM_SOFT_DIRTY": 2}),  # type: ignore[dict-item]
        ),
        ("config 'x' is not a mapping", lambda: AddressSpace(config="x")),  # type: ignore[arg-type]
        ("machine 'm' is no Machine", lambda: AddressSpace(machine="m")),  # type: ignore[arg-type]
        (
            "profile '6.1' differs from the machine's, '6.18'; leave it out",
            lambda: AddressSpace("6.1", machine=ptwalk.Machine("6.18")),
        ),
        ("size -1 is not an unsigned", lambda: ShmemFile(-1)),
        ("size 'x' is not an integer", lambda: ShmemFile("x")),  # type: ignore[arg-type]
        ("reach beyond 2\\*\\*63", lambda: ShmemFile(1 << 63)),
    ],
)
def test_construction(text: str, make: Callable[[], object]) -> None:
    with pytest.raises(InvalidArgument, match=text):
        make()


def test_file_of_another_machine(mm: AddressSpace) -> None:
    file = mm.vmas[0].file
    with pytest.raises(InvalidArgument, match="belongs to another machine, that of its first mmap"):
        AddressSpace("6.18").mmap(BASE, LENGTH, "rw-", "shared", file)


@pytest.mark.parametrize(
    "call",
    [
        lambda file: file.read(0, 1),
        lambda file: file.write(0, 1),
        lambda file: file.truncate(0),
        lambda file: file.punch_hole(0, PAGE),
        lambda file: file.cached_pages,
    ],
)
def test_file_without_machine(call: Callable[[ShmemFile], object]) -> None:
    with pytest.raises(InvalidArgument, match=r"has no machine yet.*ShmemFile\(size, machine=…\)"):
        call(ShmemFile(PAGE))


def test_file_ranges(mm: AddressSpace) -> None:
    file = mm.vmas[0].file
    assert file is not None
    with pytest.raises(InvalidArgument, match=r"write: offset .* reach beyond 2\*\*63"):
        file.write((1 << 63) - 1, 2)
    with pytest.raises(InvalidArgument, match="offset -1 is not an unsigned"):
        file.read(-1, 2)


def test_destroyed_mapping(mm: AddressSpace) -> None:
    uffd = uffd_of(mm)
    mm.munmap(BASE, LENGTH)
    with pytest.raises(KernelError, match="ENOENT"):
        uffd.writeprotect(BASE, LENGTH)
    assert not mm.ptes(BASE, LENGTH).any()
    result = mm.access(BASE, write=True)
    assert repr(result) == "AccessResult(signal, SIGSEGV code 1)"


def test_access_outside_user_memory(mm: AddressSpace) -> None:
    for addr in (END, 0xFFFF800000000000, (1 << 64) - 1):
        with pytest.raises(InvalidArgument, match=r"access: address 0x.* is not canonical user"):
            mm.access(addr, write=False)
    assert mm.access(0, write=False).outcome == "signal"
    assert mm.translate([END, (1 << 64) - 1]).tolist() == [2**64 - 1] * 2
