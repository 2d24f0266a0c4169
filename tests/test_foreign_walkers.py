"""Walkers that others wrote follow our tables from CR3 and find what `translate` finds.

volatility3 and drgn read memory images of kernels; both are in the dependency group `oracle` and
judge ptwalk here only. Our pages have no contents, so every word of the physical memory that they
are given holds its own address: what they read at a virtual address is its translation.
"""

from __future__ import annotations

import importlib.util
import random
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ptwalk import AddressSpace, ShmemFile, profiles

PAGE, PMD, PUD = 4096, 2 << 20, 1 << 30
NOWHERE = 2**64 - 1
HUGE, HUGE_LEAF = 0x7000_0000_0000, 0x8000_0000_0000_00E7  # P RW US A D PSE NX
_PAGE_RW, _PAGE_PRESENT, _PAGE_PROTNONE = 1 << 1, 1 << 0, 1 << 8

Walker = Callable[[int], int]


class Physical:
    """The physical memory of a machine, sliced like bytes: table frames, and words that say where.

    Parameters
    ----------
    mm : AddressSpace
        Whose machine; later changes are not seen.
    """

    def __init__(self, mm: AddressSpace) -> None:
        self.tables = mm.tables(copy=True).tobytes()
        self.base = mm.table_base * PAGE

    def __len__(self) -> int:
        return 1 << 52

    def __getitem__(self, place: slice) -> bytes:
        if self.base <= place.start < self.base + len(self.tables):
            return self.tables[place.start - self.base : place.stop - self.base]
        return np.arange(place.start, place.stop, 8, dtype=np.uint64).tobytes()


def volatility3_walker(mm: AddressSpace, _tmp_path: Path) -> Walker:
    """Walk by LinuxIntel32e; 5 levels are one more row in its own table of levels."""
    from volatility3.framework.contexts import Context
    from volatility3.framework.exceptions import InvalidAddressException
    from volatility3.framework.layers.intel import LinuxIntel32e
    from volatility3.framework.layers.physical import BufferDataLayer

    kind = LinuxIntel32e
    if mm.machine.levels == 5:
        rows = [("page map layer 5", 9, False), *LinuxIntel32e._structure]
        kind = type("LinuxLa57", (LinuxIntel32e,), {"_maxvirtaddr": 57, "_structure": rows})
    context = Context()
    context.add_layer(BufferDataLayer(context, "ram", "ram", Physical(mm)))
    context.config["cpu.memory_layer"] = "ram"
    context.config["cpu.page_map_offset"] = mm.cr3
    layer = kind(context, "cpu", "cpu")

    def walk(addr: int) -> int:
        try:
            physical: int = layer.translate(addr)[0]
        except InvalidAddressException:
            return NOWHERE
        return physical

    return walk


def drgn_walker(mm: AddressSpace, tmp_path: Path) -> Walker:
    """Walk by `Program.read_u64`; a core dump of one VMCOREINFO note says where the PGD is."""
    import drgn

    start_kernel_map = 0xFFFFFFFF80000000  # phys_base makes it the address of our root
    facts = [
        "OSRELEASE=6.18.0",
        "PAGESIZE=4096",
        "KERNELOFFSET=0",
        f"SYMBOL(swapper_pg_dir)={start_kernel_map:x}",
        f"NUMBER(phys_base)={mm.cr3}",
        f"NUMBER(pgtable_l5_enabled)={int(mm.machine.levels == 5)}",
        "SYMBOL(_stext)=ffffffff81000000",
    ]
    info = "".join(f"{fact}\n" for fact in facts).encode()
    note = struct.pack("<III12s", len("VMCOREINFO") + 1, len(info), 0, b"VMCOREINFO") + info
    note += bytes(-len(note) % 4)
    ident, et_core, em_x86_64, pt_note = b"\x7fELF\x02\x01\x01", 4, 62, 4
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", ident, et_core, em_x86_64, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    segment = struct.pack("<IIQQQQQQ", pt_note, 0, 120, 0, 0, len(note), len(note), 4)
    core = tmp_path / "vmcore"
    core.write_bytes(header + segment + note)
    memory = Physical(mm)
    program = drgn.Program()
    program.set_core_dump(core)
    program.add_memory_segment(
        0, 1 << 52, lambda at, count, _offset, _physical: memory[at : at + count], True
    )

    def walk(addr: int) -> int:
        try:
            word: int = program.read_u64(addr & ~7)
        except drgn.FaultError:
            return NOWHERE
        return word | addr & 7

    return walk


WALKERS = {"volatility3": volatility3_walker, "drgn": drgn_walker}
KNOWS_PROTNONE = {"volatility3": True, "drgn": False}  # drgn faults where the CPU would


def is_protnone(entry: int) -> bool:
    return entry & (_PAGE_PRESENT | _PAGE_PROTNONE) == _PAGE_PROTNONE


def filled(profile: str, levels: int, rng: random.Random) -> AddressSpace:
    """Make an address space with tables at every level and entries of every kind."""
    mm = AddressSpace(profile, levels=levels)
    top = HUGE if levels == 4 else 1 << 56
    for i in range(6):
        start = rng.randrange(top // PUD - 4) * PUD + rng.randrange(PUD // PAGE) * PAGE
        length = 3 * PMD
        file = ShmemFile(length, machine=mm.machine) if i % 2 else None
        how = "fixed_noreplace|" + ("shared" if file else "private|anonymous")
        vma = mm.mmap(start, length, "rw-", how, file)
        for page in rng.sample(range(length // PAGE), 300):
            mm.access(vma.start + page * PAGE, write=rng.random() < 0.5)
        mm.madvise(start + 100 * PAGE, 200 * PAGE, "pageout")
        mm.set_vm_flags(start, length, add="uffd_wp")
        mm.change_protection(start, start + length // 2, vma.page_prot & ~_PAGE_RW, "uffd_wp")
        mm.mprotect(start + 250 * PAGE, 400 * PAGE, "---")
    huge = mm.mmap(HUGE, 2 * PUD, "rw-").start
    mm.access(huge, write=True)
    mm.set_entry(huge + 7 * PMD, "pmd", 5 * PMD | HUGE_LEAF)
    mm.set_entry(huge + PUD, "pud", 3 * PUD | HUGE_LEAF)
    return mm


def addresses(mm: AddressSpace, rng: random.Random) -> list[int]:
    """Return addresses of all VMAs, at their edges, and of nowhere in particular."""
    found = [rng.randrange(1 << 47) for _ in range(200)]
    found += [HUGE + 7 * PMD + rng.randrange(PMD) for _ in range(20)]
    for vma in mm.vmas:
        found += [vma.start - 1, vma.start, vma.end - 1, vma.end]
        found += [rng.randrange(vma.start, vma.end) for _ in range(400)]
    return found


@pytest.mark.parametrize("profile", profiles())
def test_there_are_entries_of_many_kinds(profile: str) -> None:
    mm = filled(profile, 4, random.Random(profile))
    counts: Counter[str] = Counter()
    for vma in mm.vmas:
        counts.update(mm.count(vma.start, vma.length))
        counts["protnone"] += sum(map(is_protnone, mm.ptes(vma.start, 3 * PMD).tolist()))
    wanted = ["none", "present", "swap", "huge", "protnone"] + ["marker"] * (profile != "5.12")
    assert min(counts[kind] for kind in wanted) > 20, counts


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("profile", profiles())
@pytest.mark.parametrize("name", WALKERS)
def test_walker_agrees_with_translate(name: str, profile: str, levels: int, tmp_path: Path) -> None:
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed; it is in the dependency group oracle")
    rng = random.Random(f"{profile} {levels}")
    mm = filled(profile, levels, rng)
    walk = WALKERS[name](mm, tmp_path)
    addrs = addresses(mm, rng)
    ours = mm.translate(addrs)
    if not KNOWS_PROTNONE[name]:
        ours[[is_protnone(int(mm.ptes(addr & -PAGE, PAGE)[0])) for addr in addrs]] = NOWHERE
    theirs = [walk(addr) for addr in addrs]
    differ = [
        f"{mm.walk(addr)}: {name} says {other:#x}, translate {our:#x}"
        for addr, our, other in zip(addrs, ours.tolist(), theirs, strict=True)
        if our != other
    ]
    assert not differ, "\n".join(differ[:5])
