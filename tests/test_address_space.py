"""AddressSpace from Python: what the calls return, and the values that they return."""

from __future__ import annotations

import copy
import inspect
import pickle
import sys
from typing import Any

import numpy as np
import ptwalk
import pytest
from ptwalk import AddressSpace, KernelError, Machine, RegularFile, ShmemFile

BASE, PAGE, LENGTH = 0x7F0000000000, 4096, 4 << 20
PROFILES = ptwalk.profiles()


def shmem(profile: str, length: int = LENGTH) -> AddressSpace:
    """Return an address space with one shared shmem mapping of which page 0 was written."""
    mm = AddressSpace(profile)
    mm.mmap(BASE, length, "rw-", "shared", ShmemFile(length))
    mm.access(BASE, write=True)
    return mm


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("levels", [4, 5])
def test_options(profile: str, levels: int) -> None:
    mm = AddressSpace(profile, levels=levels)
    assert (mm.profile, mm.machine.levels) == (profile, levels)
    assert [step.level for step in mm.walk(0)] == ["pgd"]
    mm.mmap(1 << 30, PAGE, "rw-")
    mm.access(1 << 30, write=True)
    names = [step.level for step in mm.walk(1 << 30)]
    assert names == ["pgd", *(["p4d"] if levels == 5 else []), "pud", "pmd", "pte"]
    assert mm.levels(1 << 30, PAGE).tolist() == [1]
    assert mm.stats.tables_modelled == levels


def test_config() -> None:
    assert AddressSpace("6.18").config["MEM_SOFT_DIRTY"] is False
    mm = AddressSpace("6.18", config={"MEM_SOFT_DIRTY": True})
    assert mm.config["MEM_SOFT_DIRTY"] is True
    mm.mmap(BASE, PAGE, "rw-")
    mm.access(BASE, write=True)
    assert int(mm.ptes(BASE, PAGE)[0]) & 0x800


def test_mmap_returns_the_range_and_merges() -> None:
    mm = AddressSpace("6.18")
    low = mm.mmap(BASE, PAGE, "rw-")
    high = mm.mmap(BASE + PAGE, PAGE, "rw-")
    assert (low.start, high.start, high.length) == (BASE, BASE + PAGE, PAGE)
    assert [(vma.start, vma.end) for vma in mm.vmas] == [(BASE, BASE + 2 * PAGE)]
    picked = mm.mmap(None, 3 * PAGE, "r--")
    assert picked.length == 3 * PAGE
    assert picked.start % PAGE == 0


def test_vma() -> None:
    mm, file = AddressSpace("6.18"), ShmemFile(LENGTH)
    vma = mm.mmap(BASE, LENGTH - PAGE, "r-x", "shared", file, PAGE)
    assert vma == mm.vmas[0]
    assert vma.file is file
    assert (vma.offset, vma.kind, vma.uffd, vma.name) == (PAGE, "shmem", None, "")
    assert vma.prot == ptwalk.PROT_READ | ptwalk.PROT_EXEC
    assert vma.flags == ptwalk.MAP_SHARED
    assert vma.vm_flags & ptwalk.VM_MAYWRITE
    assert vma.page_prot == 0x25
    assert str(vma).rstrip() == "0x00007f0000000000-0x00007f00003ff000 r-xs 00001000"
    assert repr(vma) == "Vma(0x00007f0000000000-0x00007f00003ff000 r-xs shmem)"
    with pytest.raises(AttributeError):
        vma.start = 0  # type: ignore[misc]


def test_shared_anonymous_memory_is_a_file() -> None:
    mm = AddressSpace("6.18")
    vma = mm.mmap(BASE, LENGTH, "rw-", "shared|anonymous")
    assert isinstance(vma.file, ShmemFile)
    assert vma.file.size == LENGTH
    assert mm.vmas[0].file is vma.file
    mm.access(BASE + PAGE, write=True)
    assert vma.file.cached_pages.tolist() == [1]


def test_file() -> None:
    machine = Machine("6.18")
    file = RegularFile(3 * PAGE, machine=machine)
    file.write(PAGE, 1)
    assert file.cached_pages.tolist() == [1]
    file.read(2 * PAGE, PAGE)
    assert file.cached_pages.tolist() == [1, 2]
    file.truncate(2 * PAGE)
    assert (file.size, file.cached_pages.tolist()) == (2 * PAGE, [1])
    file.write(4 * PAGE, 1)
    assert file.size == 4 * PAGE + 1
    assert (file.writable, file.machine, repr(file)) == (True, machine, "RegularFile(0x4001)")
    hole = ShmemFile(2 * PAGE, machine=machine)
    hole.read(0, 2 * PAGE)
    assert hole.cached_pages.tolist() == []
    hole.write(0, 2 * PAGE)
    hole.punch_hole(0, PAGE)
    assert hole.cached_pages.tolist() == [1]


def test_two_address_spaces_share_a_file() -> None:
    machine = Machine("6.18")
    one, two = AddressSpace(machine=machine), AddressSpace(machine=machine)
    file = ShmemFile(LENGTH)
    for mm in (one, two):
        mm.mmap(BASE, LENGTH, "rw-", "shared", file)
        mm.access(BASE, write=True)
    assert one.translate([BASE]) == two.translate([BASE])
    assert one.pages(BASE, PAGE)["mapcount"].tolist() == [2]


def test_protect_result() -> None:
    mm = shmem("uffd-wp-v2")
    uffd = mm.userfaultfd()
    uffd.register(BASE, LENGTH, "wp")
    result = uffd.writeprotect(BASE, LENGTH)
    assert result.flush == (BASE, BASE + LENGTH)
    assert result.notifier == (("protection_vma", BASE, BASE + LENGTH),)
    assert (result.bad_cleared, result.warnings, result.notifier_unended) == ((), (), 0)
    assert result.pages == result.none_to_marker + result.present
    fields = result.asdict()
    assert list(fields)[:8] == [
        "pages",
        "none_to_marker",
        "marker_to_none",
        "present",
        "swap",
        "huge",
        "none_skipped",
        "tables_allocated",
    ]
    assert all(getattr(result, name) == value for name, value in fields.items())
    with pytest.raises(AttributeError):
        result.pages = 0  # type: ignore[misc]
    again = uffd.writeprotect(BASE, LENGTH)
    assert (again.none_to_marker, again == result, hash(result) == hash(result)) == (0, False, True)


def test_warning_and_bad_entry() -> None:
    mm = shmem("uffd-wp-v2")
    uffd = mm.userfaultfd()
    uffd.register(BASE, LENGTH, "wp")
    mm.fail_table_alloc(1)
    result = uffd.writeprotect(BASE, LENGTH)
    assert result.warnings == ("WARNING: page table allocation failed",)
    assert (result.pages, result.none_skipped) == (512, 512)
    assert "warnings=('WARNING: page table allocation failed',)" in repr(result)
    mm.set_entry(BASE + (2 << 20), "pmd", 0x1001)
    result = uffd.writeprotect(BASE, LENGTH, protect=False)
    assert result.bad_cleared == (("pmd", BASE + (2 << 20)),)
    assert "bad_cleared=pmd@0x00007f0000200000" in repr(result)


def test_allocation_failure_is_enomem_on_6_18() -> None:
    mm = shmem("6.18")
    uffd = mm.userfaultfd()
    uffd.register(BASE, LENGTH, "wp")
    mm.fail_table_alloc(1)
    with pytest.raises(KernelError, match="ENOMEM") as caught:
        uffd.writeprotect(BASE, LENGTH)
    assert isinstance(caught.value.done, ptwalk.ProtectResult)


def values() -> list[Any]:
    """Return one of each value class, the interesting fields set."""
    mm = shmem("uffd-wp-v2")
    uffd = mm.userfaultfd()
    uffd.register(BASE, LENGTH, "wp")
    mm.fail_table_alloc(1)
    protected = uffd.writeprotect(BASE, LENGTH)
    blocked = mm.access(BASE, write=True)
    signal = mm.access(0, write=True)
    return [protected, blocked, signal, signal.signal, blocked.message, *mm.pending]


@pytest.mark.parametrize("value", values(), ids=lambda value: type(value).__name__)
def test_values_are_values(value: Any) -> None:
    twin = pickle.loads(pickle.dumps(value))
    assert twin == value == copy.deepcopy(value)
    assert twin is not value
    assert hash(twin) == hash(value)
    assert twin.asdict() == value.asdict()
    assert value != 1
    assert value in {twin}
    with pytest.raises(TypeError, match="cannot create"):
        type(value)()
    with pytest.raises(AttributeError):
        value.pages = 1
    copies = [copy.copy(value) for _ in range(100)]
    references = [sys.getrefcount(type(value))]  # an object holds one to its class
    del copies
    references.append(sys.getrefcount(type(value)))
    assert references[0] - references[1] == 100


def test_writeprotect_takes_its_arguments_as_a_function_in_python_would() -> None:
    mm = shmem("6.18")
    uffd = mm.userfaultfd()
    uffd.register(BASE, LENGTH, "wp")
    signature = inspect.signature(ptwalk.Userfaultfd.writeprotect)
    assert list(signature.parameters) == [
        "self", "start", "length", "protect", "wake", "mode", "threads"
    ]  # fmt: skip
    assert uffd.writeprotect(BASE, PAGE).pages == 1
    assert uffd.writeprotect(length=PAGE, start=BASE, mode=None, wake=True).present == 1
    assert uffd.writeprotect(BASE, PAGE, protect=0, threads=None).pages == 1  # type: ignore[arg-type]
    assert mm.access(BASE, write=True).outcome == "done"
    assert uffd.writeprotect(BASE, PAGE, protect=False, mode=1).pages == 1
    assert mm.access(BASE, write=True).outcome == "blocked"
    uffd.writeprotect(BASE, PAGE, protect=False, wake=False)
    assert not mm.pending[0].woken
    wrong: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
        ("missing required argument 'length'", (BASE,), {}),
        ("takes 2 positional arguments but 3 were given", (BASE, PAGE, True), {}),
        ("unexpected keyword argument 'wp'", (BASE, PAGE), {"wp": True}),
        ("multiple values for argument 'start'", (BASE, PAGE), {"start": BASE}),
    ]
    for text, arguments, named in wrong:
        with pytest.raises(TypeError, match=text):
            uffd.writeprotect(*arguments, **named)
    with pytest.raises(TypeError, match="never initialised"):
        ptwalk.Userfaultfd.__new__(ptwalk.Userfaultfd).writeprotect(BASE, PAGE)
    with pytest.raises(TypeError, match="expected 4 arguments, got 1"):
        mm._core.mprotect(BASE)  # type: ignore[call-arg]


def test_access_and_messages() -> None:
    mm = shmem("6.18")
    uffd = mm.userfaultfd()
    uffd.register(BASE, LENGTH, "wp")
    uffd.writeprotect(BASE, LENGTH)
    result = mm.access(BASE + 8, write=True)
    assert (result.outcome, result.address, result.signal) == ("blocked", BASE + 8, None)
    assert result.before == result.after == int(mm.ptes(BASE, PAGE)[0])
    pending = mm.pending
    assert [(fault.address, fault.write, fault.woken) for fault in pending] == [(BASE, True, False)]
    assert pending[0].uffd == uffd.number == mm.vmas[0].uffd
    (message,) = uffd.read()
    assert message == result.message
    assert (message.event, message.address, message.child) == ("pagefault", BASE, None)
    assert message.flags == ptwalk.UFFD_PAGEFAULT_FLAG_WRITE | ptwalk.UFFD_PAGEFAULT_FLAG_WP
    assert uffd.read() == []
    uffd.writeprotect(BASE, PAGE, protect=False)
    assert mm.pending[0].woken
    assert mm.access(BASE + 8, write=True).outcome == "done"
    assert mm.pending == []


def test_features() -> None:
    uffd = AddressSpace("6.18").userfaultfd("wp_unpopulated|event_fork")
    assert uffd.features == ptwalk.UFFD_FEATURE_WP_UNPOPULATED | ptwalk.UFFD_FEATURE_EVENT_FORK
    assert repr(uffd) == "Userfaultfd(0)"


def test_arrays() -> None:
    mm = shmem("6.18")
    out = np.full(1024, 7, np.uint64)
    assert mm.ptes(BASE, LENGTH, out=out) is out
    assert out[0] != 0
    assert not out[1:].any()
    assert mm.levels(BASE, LENGTH).tolist() == [1] * 512 + [2] * 512
    assert mm.ptes(BASE, 0).shape == (0,)
    assert mm.translate([]).shape == (0,)
    addrs = np.array([BASE + 5, BASE + LENGTH], np.uint64)
    physical = mm.translate(addrs)
    assert mm.translate(addrs, out=addrs) is addrs
    np.testing.assert_array_equal(addrs, physical)
    page = mm.pages(BASE, LENGTH)
    assert page["pfn"][0] == int(mm.translate([BASE])[0]) >> 12
    assert (page["level"][0], page["mapcount"][0], page["file"][0]) == (1, 1, 0)
    assert (page["level"][600], page["mapcount"][600], page["file"][600]) == (2, 0, -1)


def test_foreign_walk_over_tables() -> None:
    mm = shmem("6.18")
    addr, entry = BASE + 0x123, mm.cr3
    tables = mm.tables()
    assert tables.dtype == np.uint64
    assert not tables.flags.writeable
    for shift in (39, 30, 21, 12):
        row = (entry >> 12 & (1 << 40) - 1) - mm.table_base
        entry = int(tables[row, addr >> shift & 511])
    assert entry & 0xFFFFFFFFFF000 | 0x123 == mm.translate([addr])[0]
    copied = mm.tables(copy=True)
    assert copied.flags.writeable
    assert (copied == tables).all()


def test_count() -> None:
    mm = shmem("6.18")
    uffd = mm.userfaultfd()
    uffd.register(BASE, LENGTH, "wp")
    uffd.writeprotect(BASE, LENGTH // 2)
    assert mm.count(BASE, LENGTH) == {"none": 512, "present": 1, "marker": 511}
    assert mm.count(0, 1 << 46) == {"none": 1 << 34}


def test_raw_stores() -> None:
    mm = AddressSpace("6.18")
    assert mm.entry(BASE, "pgd") == 0
    for level in ("pgd", "pud", "pmd"):
        mm.alloc_table(BASE, level)
        assert mm.entry(BASE, level) & 0xFFF == 0x67
    mm.set_pte(BASE, 0x8000000012345067)
    assert mm.entry(BASE) == mm.ptes(BASE, PAGE)[0] == 0x8000000012345067
    assert mm.entry(BASE, 1) == mm.entry(BASE, "pte")
    words = np.arange(0, 600, dtype=np.uint64) << np.uint64(12) | np.uint64(0x25)
    mm.set_ptes(BASE + PAGE, words)
    assert (mm.ptes(BASE + PAGE, 600 * PAGE) == words).all()
    assert mm.pages(BASE, PAGE)["pfn"].tolist() == [0x12345]
    assert mm.stats.tables_modelled == 5


def test_set_vm_flags_splits() -> None:
    mm = AddressSpace("uffd-wp-v2-11")
    mm.mmap(BASE, LENGTH, "rw-", "shared", ShmemFile(LENGTH))
    mm.set_vm_flags(BASE, PAGE, add="uffd_wp")
    assert [bool(vma.vm_flags & ptwalk.VM_UFFD_WP) for vma in mm.vmas] == [True, False]
    mm.set_vm_flags(BASE, PAGE, remove=ptwalk.VM_UFFD_WP)
    assert not any(vma.vm_flags & ptwalk.VM_UFFD_WP for vma in mm.vmas)


def test_load() -> None:
    mm, file = AddressSpace("6.18"), RegularFile(LENGTH)
    mm.load_vma(
        BASE, BASE + 4 * PAGE, "read|mayread|maywrite", kind="regular", file=file, name="/a/b"
    )
    vma = mm.vmas[0]
    assert (vma.name, vma.file, vma.permissions) == ("/a/b", file, "r--p")
    assert str(vma).split() == ["0x00007f0000000000-0x00007f0000004000", "r--p", "00000000", "b"]
    words = np.array([0x25, 0x8000000000000025, 0, 0x25], np.uint64)
    mm.load_pages(BASE, words, np.array([2, 1 | 4, 0, 2], np.uint8))
    assert mm.count(BASE, 4 * PAGE) == {"none": 1, "present": 3}
    assert file.cached_pages.tolist() == [0, 3]
    assert mm.validate() == []


@pytest.mark.parametrize("profile", ["5.12", "uffd-wp-v2-11"])
def test_change_protection_where_register_refuses(profile: str) -> None:
    mm = shmem(profile)
    vma = mm.vmas[0]
    with pytest.raises(KernelError, match="EINVAL"):
        mm.userfaultfd().register(vma.start, LENGTH, "wp")
    result = mm.change_protection(vma.start, vma.end, 0x8000000000000025, ptwalk.MM_CP_UFFD_WP)
    if profile == "5.12":
        assert (result.pages, result.none_skipped) == (1, 1023)
    else:
        assert result.pages == 1024
        assert (mm.ptes(BASE, LENGTH)[1:] == 0x4).all()


def test_mprotect_stops_half_way() -> None:
    mm = shmem("6.18")
    with pytest.raises(KernelError, match="ENOMEM") as caught:
        mm.mprotect(BASE, LENGTH + PAGE, "r--")
    assert caught.value.done.present == 1
    assert mm.vmas[0].prot == ptwalk.PROT_READ


def test_fork_and_mremap() -> None:
    mm = AddressSpace("6.18")
    vma = mm.mmap(BASE, 4 * PAGE, "rw-")
    mm.populate(vma.start, vma.length, write=True)
    child = mm.fork()
    assert child.machine is mm.machine
    assert child.translate([BASE]) == mm.translate([BASE])
    assert child.access(BASE, write=True).outcome == "done"
    assert child.translate([BASE]) != mm.translate([BASE])
    moved = mm.mremap(BASE, 4 * PAGE, 4 * PAGE, "maymove|fixed", BASE + LENGTH)
    assert (moved.start, moved.length) == (BASE + LENGTH, 4 * PAGE)
    assert mm.count(moved.start, moved.length) == {"present": 4}
    assert (mm.validate(), child.validate()) == ([], [])


def test_fork_event_brings_a_userfaultfd() -> None:
    mm = AddressSpace("6.18")
    mm.mmap(BASE, PAGE, "rw-")
    uffd = mm.userfaultfd("event_fork")
    uffd.register(BASE, PAGE, "wp")
    child = mm.fork()
    (message,) = uffd.read()
    assert message.event == "fork"
    assert message.child is not None
    theirs = ptwalk.Userfaultfd(child, message.child)
    assert repr(message) == f"UffdMsg(fork, child={theirs.number})"
    assert child.vmas[0].uffd == theirs.number


def test_page_align() -> None:
    assert [ptwalk.page_align(n) for n in (0, 1, 4096, 4097)] == [0, 4096, 4096, 8192]
    assert [ptwalk.page_align_down(n) for n in (0, 1, 4096, 8191)] == [0, 0, 4096, 4096]
