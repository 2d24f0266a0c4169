"""The named cases of section 9 of the v2 spec: ioctl checks (I), faults, zap and fork (F).

All through the public AddressSpace under uffd-wp-v2. A state that a case needs is reached by the
calls that lead to it or, where the case names a word that they cannot make, stored raw.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable

import numpy as np
import ptwalk
import pytest
from named_vectors import CASES, Case, group
from ptwalk import AddressSpace, KernelError, Kind, ShmemFile, Userfaultfd, Vm

V2 = "uffd-wp-v2"
BASE, PAGE, HUGE = 0x7F0000000000, 4096, 2 << 20
PFN_FIELD = 0x000F_FFFF_FFFF_F000
MARKER = 0x4


# --- ioctl checks ---------------------------------------------------------------------------------
def shmem(flags: str = "shared", features: str | int = 0) -> tuple[AddressSpace, Userfaultfd]:
    """Return 4 MiB of a memfd, all of it in the page cache, registered for wp."""
    mm, file = AddressSpace(V2), ShmemFile(2 * HUGE)
    mm.mmap(BASE, 2 * HUGE, "rw-", flags, file)
    file.write(0, 2 * HUGE)
    uffd = mm.userfaultfd(features)
    uffd.register(BASE, 2 * HUGE, "wp")
    return mm, uffd


def anon() -> tuple[AddressSpace, Userfaultfd]:
    """Return 4 MiB of private anonymous memory, registered for wp."""
    mm = AddressSpace(V2)
    mm.mmap(BASE, 2 * HUGE, "rw-")
    uffd = mm.userfaultfd()
    uffd.register(BASE, 2 * HUGE, "wp")
    return mm, uffd


def changing() -> None:
    mm, uffd = shmem(features="event_remove")
    mm.madvise(BASE, PAGE, "dontneed")
    uffd.writeprotect(BASE, PAGE)


def not_registered(*, mapped: bool) -> None:
    mm, uffd = shmem()
    if mapped:
        mm.mmap(BASE - HUGE, HUGE, "rw-", "shared|anonymous|fixed")
    uffd.writeprotect(BASE - HUGE, HUGE)


def crosses_the_end() -> None:
    shmem()[1].writeprotect(BASE + HUGE, 2 * HUGE)


def over_a_hole() -> None:
    mm, uffd = shmem()
    mm.munmap(BASE + PAGE, PAGE)
    uffd.writeprotect(BASE, 3 * PAGE)


def registered_missing() -> None:
    mm, uffd = anon()
    uffd.register(BASE, 2 * HUGE, "missing")
    mm.set_vm_flags(BASE, 2 * HUGE, remove="uffd_wp")
    uffd.writeprotect(BASE, PAGE)


def hugetlb_unaligned() -> None:
    mm = AddressSpace(V2)
    flags = Vm.READ | Vm.WRITE | Vm.MAYREAD | Vm.MAYWRITE | Vm.SHARED | Vm.MAYSHARE | Vm.HUGETLB
    mm.load_vma(BASE, BASE + HUGE, flags, kind="hugetlb")
    uffd = mm.userfaultfd()
    uffd.register(BASE, HUGE, "wp")
    uffd.writeprotect(BASE + PAGE, HUGE - PAGE)


def no_table() -> None:
    mm, uffd = shmem()
    mm.access(BASE, write=False)
    mm.fail_table_alloc(1)
    result = uffd.writeprotect(BASE, 2 * HUGE)
    assert (result.pages, len(result.warnings), mm.entry(BASE + HUGE, "pmd")) == (512, 1, 0)


IOCTLS: dict[str, list[Callable[[], object]]] = {
    "I01": [lambda: shmem()[1].writeprotect(BASE + 1, PAGE)],
    "I02": [lambda: shmem()[1].writeprotect(BASE, 0)],
    "I03": [lambda: shmem()[1].writeprotect(BASE, 0x1800)],
    "I04": [lambda: shmem()[1].writeprotect(BASE, PAGE, mode=4)],
    "I05": [lambda: shmem()[1].writeprotect(BASE, PAGE, mode=3)],
    "I06": [changing],
    "I07": [
        lambda: not_registered(mapped=False),
        lambda: not_registered(mapped=True),
        crosses_the_end,
        over_a_hole,
    ],
    "I08": [registered_missing],
    "I09": [hugetlb_unaligned],
    "I10": [no_table],
}


@pytest.mark.parametrize("case", group("I"))
def test_ioctl(case: Case) -> None:
    for call in IOCTLS[case["id"]]:
        if case["new"] == "0":
            call()
            continue
        with pytest.raises(KernelError) as caught:
            call()
        assert errno.errorcode[caught.value.errno or 0] == case["new"]


# --- faults, zap, fork ----------------------------------------------------------------------------
Run = Callable[[Case], tuple[AddressSpace, int]]  # the space and the entry that the case is about


def marked(flags: str = "shared", features: str | int = 0) -> tuple[AddressSpace, Userfaultfd]:
    """Return a cached memfd that is all markers."""
    mm, uffd = shmem(flags, features)
    mm.alloc_table(BASE, "pgd")
    mm.alloc_table(BASE, "pud")
    assert uffd.writeprotect(BASE, 2 * HUGE).none_to_marker == 1024
    return mm, uffd


def holding(case: Case, flags: str = "shared") -> AddressSpace:
    """Return a memfd, not registered, whose first entry is the word of the case."""
    mm = AddressSpace(V2)
    mm.mmap(BASE, HUGE, "rw-", flags, None if "anonymous" in flags else ShmemFile(HUGE))
    mm.set_ptes(BASE, np.array([int(case["old"], 16)], np.uint64))
    return mm


def cached_pfn(mm: AddressSpace) -> int:
    """Return the frame of the first page of the file, by another mapping of it."""
    other = AddressSpace(machine=mm.machine)
    other.mmap(BASE, PAGE, "rw-", "shared", mm.vmas[0].file)
    other.access(BASE, write=False)
    return int(other.translate([BASE])[0]) >> 12


def f01(_: Case) -> tuple[AddressSpace, int]:
    mm, uffd = marked()
    assert mm.access(BASE, write=False).outcome == "done"
    assert uffd.read() == []
    assert int(mm.translate([BASE])[0]) >> 12 == cached_pfn(mm)
    return mm, mm.entry(BASE)


def check_wp_message(uffd: Userfaultfd) -> None:
    (message,) = uffd.read()
    assert message.flags == ptwalk.UFFD_PAGEFAULT_FLAG_WRITE | ptwalk.UFFD_PAGEFAULT_FLAG_WP


def f02(_: Case) -> tuple[AddressSpace, int]:
    mm, uffd = marked()
    assert mm.access(BASE, write=True).outcome == "blocked"
    check_wp_message(uffd)
    return mm, mm.entry(BASE)


def f03(_: Case) -> tuple[AddressSpace, int]:
    mm, uffd = marked("private")
    assert mm.access(BASE, write=True).outcome == "blocked"
    check_wp_message(uffd)
    assert int(mm.translate([BASE])[0]) >> 12 != cached_pfn(mm)
    assert mm.pages(BASE, PAGE)["file"].tolist() == [-1]
    return mm, mm.entry(BASE)


def f04(_: Case) -> tuple[AddressSpace, int]:
    """Clear lazily; beyond the end of the file the retry cannot fill the entry again."""
    mm, uffd = marked()
    uffd.unregister(BASE, 2 * HUGE)
    assert mm.access(BASE + PAGE, write=True).outcome == "done"
    assert mm.entry(BASE + PAGE) & ~PFN_FIELD == 0x8000000000000867
    file = mm.vmas[0].file
    assert file is not None
    file.truncate(0)
    assert mm.access(BASE, write=False).before == MARKER
    return mm, mm.entry(BASE)


def f05(_: Case) -> tuple[AddressSpace, int]:
    mm = AddressSpace(V2)
    mm.mmap(BASE, HUGE, "rw-", "shared", ShmemFile(HUGE))
    assert mm.access(BASE, write=True).outcome == "done"
    return mm, mm.entry(BASE)


def copied(case: Case, *, wp: bool, flags: str = "shared") -> tuple[AddressSpace, int]:
    """UFFDIO_COPY to the first page, which no page cache holds."""
    mm = AddressSpace(V2)
    mm.mmap(BASE, HUGE, "rw-", flags, None if "anonymous" in flags else ShmemFile(HUGE))
    uffd = mm.userfaultfd()
    uffd.register(BASE, HUGE, "missing|wp")
    mm.set_ptes(BASE, np.array([int(case["old"], 16)], np.uint64))
    uffd.copy(BASE, PAGE, wp=wp)
    return mm, mm.entry(BASE)


def f08(case: Case) -> tuple[AddressSpace, int]:
    with pytest.raises(KernelError) as caught:
        copied(case, wp=False, flags="private")
    assert caught.value.errno == errno.EEXIST
    assert case["new"] == "unchanged, -EEXIST"
    mm, uffd = marked("private")
    with pytest.raises(KernelError, match="EEXIST"):
        uffd.copy(BASE, PAGE)
    return mm, mm.entry(BASE)


def armed_and_written(mm: AddressSpace, uffd: Userfaultfd) -> int:
    mm.access(BASE, write=True)
    uffd.writeprotect(BASE, PAGE)
    return mm.entry(BASE)


def f10(case: Case) -> tuple[AddressSpace, int]:
    mm, uffd = anon()
    armed_and_written(mm, uffd)
    mm.reclaim(BASE, PAGE)
    assert mm.entry(BASE) & 0x1FF == int(case["old"], 16) & 0x1FF
    assert mm.access(BASE, write=False).outcome == "done"
    return mm, mm.entry(BASE)


def dontneed(case: Case, flags: str = "shared") -> tuple[AddressSpace, int]:
    mm = holding(case, flags)
    mm.madvise(BASE, PAGE, "dontneed")
    return mm, mm.entry(BASE)


def unmapped(case: Case) -> tuple[AddressSpace, int]:
    mm = holding(case)
    mm.munmap(BASE, PAGE)
    return mm, mm.entry(BASE)


def f18(case: Case) -> tuple[AddressSpace, int]:
    """Unmap by file range as truncation does: private copies too, but no swap entries."""
    mm = holding(case, "private")
    mm.set_pte(BASE + PAGE, 0x8000000012345425)
    file = mm.vmas[0].file
    assert file is not None
    file.truncate(0)
    assert mm.entry(BASE + PAGE) == MARKER
    return mm, mm.entry(BASE)


def f19(case: Case) -> tuple[AddressSpace, int]:
    mm, uffd = shmem()
    mm.access(BASE, write=False)
    uffd.writeprotect(BASE, PAGE)
    assert mm.entry(BASE) & ~PFN_FIELD == int(case["old"], 16) & ~PFN_FIELD
    assert mm.reclaim(BASE, PAGE) == 1
    return mm, mm.entry(BASE)


def f20(_: Case) -> tuple[AddressSpace, int]:
    mm, uffd = shmem("private")
    armed_and_written(mm, uffd)
    assert mm.reclaim(BASE, PAGE) == 1
    return mm, mm.entry(BASE)


def f21(case: Case) -> tuple[AddressSpace, int]:
    mm, uffd = shmem()
    assert armed_and_written(mm, uffd) & ~PFN_FIELD == int(case["old"], 16) & ~PFN_FIELD
    with mm.migrate_pages(BASE, PAGE) as migration:
        entry = mm.entry(BASE)
        assert mm.decode(np.array([entry], np.uint64))["offset"][0] == migration.pfns[0]
    return mm, entry


def forked(*, event: bool, anon_vma: bool) -> tuple[AddressSpace, int]:
    mm, uffd = marked("private" if anon_vma else "shared", "event_fork" if event else 0)
    if anon_vma:
        mm.access(BASE + PAGE, write=True)
    child = mm.fork()
    assert mm.entry(BASE) == MARKER
    assert [bool(vma.vm_flags & ptwalk.VM_UFFD_WP) for vma in child.vmas] == [event]
    assert child.validate() == []
    if not anon_vma:
        assert child.stats.tables_modelled == 1
    uffd.read()
    return mm, int(child.ptes(BASE, PAGE)[0])


FAULTS: dict[str, Run] = {
    "F01": f01,
    "F02": f02,
    "F03": f03,
    "F04": f04,
    "F05": f05,
    "F06": lambda case: copied(case, wp=True),
    "F07": lambda case: copied(case, wp=False),
    "F08": f08,
    "F09": lambda case: copied(case, wp=True, flags="private|anonymous"),
    "F10": f10,
    "F11": dontneed,
    "F12": dontneed,
    "F13": unmapped,
    "F14": dontneed,
    "F15": unmapped,
    "F16": lambda case: dontneed(case, "private|anonymous"),
    "F17": lambda case: dontneed(case, "private"),
    "F18": f18,
    "F19": f19,
    "F20": f20,
    "F21": f21,
    "F22": lambda _: forked(event=True, anon_vma=True),
    "F23": lambda _: forked(event=False, anon_vma=True),
    "F24": lambda _: forked(event=True, anon_vma=False),
}
RAW_SWAP = {"F18"}  # what is left names a slot that no page was ever written to


def meaning(word: int) -> tuple[Kind, int]:
    """Return the kind and all bits but those that say which frame or slot."""
    entry = ptwalk.decode(np.array([word], np.uint64), profile=V2)[0]
    kind = Kind(entry["kind"])
    if kind == Kind.SWAP:
        return kind, word & 0x1FF  # the case has area 3; the machine has one, area 0
    if kind == Kind.MIGRATION:
        return kind, word >> 59 << 59 | word & 0x1FF
    return kind, word & ~PFN_FIELD


@pytest.mark.parametrize("case", group("F"))
def test_fault(case: Case) -> None:
    mm, entry = FAULTS[case["id"]](case)
    new = case["new"]
    if new.startswith("unchanged"):
        expected = int(case["old"], 16)
    elif new == "child: no page table copied":
        expected = 0
    else:
        found = re.match(r"(?:child )?(0x[0-9a-f]+|0$)", new)
        assert found, new
        expected = int(found[1], 16)
    if case["id"] in RAW_SWAP:
        assert entry == expected
        return
    assert meaning(entry) == meaning(expected)
    assert mm.validate() == []


def test_every_case_has_its_run() -> None:
    ids = {case["id"] for case in CASES if case["id"][0] in "IF"}
    assert set(IOCTLS) | set(FAULTS) == ids
