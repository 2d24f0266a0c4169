"""Walkers to compare `translate` with: what people write in numpy and numba, drgn, volatility3.

All follow the same image: table frames as rows of 512 words, whose table pointers are moved so
that row i is frame i of a small physical memory. Each returns physical addresses, or `NOWHERE`.
"""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..address_space import AddressSpace
from .harness import U64

NOWHERE = 2**64 - 1
_FRAME = 0xFFFFFFFFFF000
_PRESENT, _HUGE = 1, 0x80
_SHIFTS = (39, 30, 21, 12)

# The same as words, for numba.
_U_NOWHERE, _PFN, _P = np.uint64(NOWHERE), np.uint64(_FRAME), np.uint64(_PRESENT)
_P_PSE, _NINE, _INDEX = np.uint64(_PRESENT | _HUGE), np.uint64(9), np.uint64(511)
_SHIFT_39, _SHIFT_30, _SHIFT_21, _SHIFT_12 = map(np.uint64, _SHIFTS)
_IN_PUD, _IN_PMD, _IN_PAGE = np.uint64(2**30 - 1), np.uint64(2**21 - 1), np.uint64(4095)

Walker = Callable[[U64], Any]


def image(mm: AddressSpace) -> tuple[U64, int]:
    """Return the tables of a machine from frame 0 on, and the row of the root.

    Parameters
    ----------
    mm : AddressSpace
        With 4 levels, and pages below its table frames.
    """
    tables = mm.tables(copy=True)
    frames = tables >> np.uint64(12) & np.uint64((1 << 40) - 1)
    base = np.uint64(mm.table_base)
    pointers = (frames >= base) & (frames < base + np.uint64(len(tables)))
    tables[pointers] -= base << np.uint64(12)
    return tables, (mm.cr3 >> 12) - mm.table_base


def python_walker(tables: U64, root: int) -> Walker:
    """Walk lists of ints, one address at a time."""
    rows = tables.tolist()

    def walk(addrs: U64) -> list[int]:
        found = []
        for addr in addrs.tolist():
            entry = root << 12 | _PRESENT
            for shift in _SHIFTS:
                entry = rows[(entry & _FRAME) >> 12][addr >> shift & 511]
                if not entry & _PRESENT:
                    found.append(NOWHERE)
                    break
            else:
                found.append(entry & _FRAME | addr & 4095)
        return found

    return walk


def numpy_walker(tables: U64, root: int) -> Walker:
    """Walk all addresses a level at a time; the frames of absent entries are taken as row 0."""
    flat = tables.ravel()

    def walk(addrs: U64) -> U64:
        rows: Any = np.uint64(root)
        here: Any = True
        for shift in _SHIFTS:
            entries = flat[(rows << np.uint64(9)) + (addrs >> np.uint64(shift) & np.uint64(511))]
            here = here & (entries & np.uint64(_PRESENT) != 0)
            frames = entries & np.uint64(_FRAME)
            rows = np.where(here, frames >> np.uint64(12), np.uint64(0))
        return np.where(here, frames | addrs & np.uint64(4095), np.uint64(NOWHERE))

    return walk


def numba_walker(tables: U64, root: int) -> Walker:
    """Walk in a compiled loop."""
    import numba

    njit: Any = numba.njit
    loop = njit(_walk)
    flat, first = tables.ravel(), np.uint64(root)

    def walk(addrs: U64) -> U64:
        out = np.empty_like(addrs)
        loop(flat, first, addrs, out)
        return out

    return walk


def _walk(flat: Any, root: Any, addrs: Any, out: Any) -> None:
    """Follow four levels, with the tests for present entries and huge leaves that a walk needs."""
    for i in range(len(addrs)):
        addr = addrs[i]
        out[i] = _U_NOWHERE
        pgd = flat[(root << _NINE) + (addr >> _SHIFT_39 & _INDEX)]
        if not pgd & _P:
            continue
        pud = flat[((pgd & _PFN) >> _SHIFT_12 << _NINE) + (addr >> _SHIFT_30 & _INDEX)]
        if pud & _P_PSE != _P:
            if pud & _P:
                out[i] = (pud & _PFN & ~_IN_PUD) | (addr & _IN_PUD)
            continue
        pmd = flat[((pud & _PFN) >> _SHIFT_12 << _NINE) + (addr >> _SHIFT_21 & _INDEX)]
        if pmd & _P_PSE != _P:
            if pmd & _P:
                out[i] = (pmd & _PFN & ~_IN_PMD) | (addr & _IN_PMD)
            continue
        pte = flat[((pmd & _PFN) >> _SHIFT_12 << _NINE) + (addr >> _SHIFT_12 & _INDEX)]
        if pte & _P:
            out[i] = (pte & _PFN) | (addr & _IN_PAGE)


def volatility3_walker(tables: U64, root: int) -> Walker:
    """Walk by the layer LinuxIntel32e, its inner `_translate`, over the image as one buffer."""
    from volatility3.framework.contexts import Context
    from volatility3.framework.exceptions import InvalidAddressException
    from volatility3.framework.layers.intel import LinuxIntel32e
    from volatility3.framework.layers.physical import BufferDataLayer

    context = Context()
    context.add_layer(BufferDataLayer(context, "ram", "ram", tables.tobytes()))
    context.config["cpu.memory_layer"] = "ram"
    context.config["cpu.page_map_offset"] = root << 12
    translate = LinuxIntel32e(context, "cpu", "cpu")._translate

    def walk(addrs: U64) -> list[int]:
        found = []
        for addr in addrs.tolist():
            try:
                found.append(translate(addr)[0])
            except InvalidAddressException:
                found.append(NOWHERE)
        return found

    return walk


def drgn_walker(tables: U64, root: int) -> Walker:
    """Walk by drgn's page-table iterator in C, over a core dump whose memory is the image.

    `_linux_helper_follow_phys` is what its helper `follow_phys` calls, without the type lookup.
    """
    import drgn
    from _drgn import _linux_helper_follow_phys as follow_phys

    pgd = 0xFFFFFFFF80000000  # of the kernel's image, which phys_base puts at our root
    facts = {
        "OSRELEASE": "6.18.0",
        "PAGESIZE": 4096,
        "KERNELOFFSET": 0,
        "SYMBOL(swapper_pg_dir)": f"{pgd:x}",
        "NUMBER(phys_base)": root << 12,
        "NUMBER(pgtable_l5_enabled)": 0,
        "SYMBOL(_stext)": "ffffffff81000000",
    }
    program = drgn.Program()
    with tempfile.TemporaryDirectory(prefix="ptwalk-bench-") as directory:
        core = Path(directory, "vmcore")  # drgn keeps it open
        core.write_bytes(_core_dump(facts, tables.tobytes()))
        program.set_core_dump(core)

    def walk(addrs: U64) -> list[int]:
        found = []
        for addr in addrs.tolist():
            try:
                found.append(follow_phys(program, pgd, addr))
            except drgn.FaultError:
                found.append(NOWHERE)
        return found

    return walk


def _core_dump(facts: dict[str, Any], memory: bytes) -> bytes:
    """Return an ELF core of one note and one segment of physical memory from 0 on."""
    info = "".join(f"{name}={fact}\n" for name, fact in facts.items()).encode()
    note = struct.pack("<III12s", len("VMCOREINFO") + 1, len(info), 0, b"VMCOREINFO") + info
    note += bytes(-len(note) % 8)
    ident, et_core, em_x86_64, pt_load, pt_note = b"\x7fELF\x02\x01\x01", 4, 62, 1, 4
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", ident, et_core, em_x86_64, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0
    )
    first = 64 + 2 * 56
    direct_map = 0xFFFF888000000000
    segments = [
        (pt_note, 0, first, 0, 0, len(note), len(note), 4),
        (pt_load, 6, first + len(note), direct_map, 0, len(memory), len(memory), 4096),
    ]
    return header + b"".join(struct.pack("<IIQQQQQQ", *s) for s in segments) + note + memory


WALKERS: dict[str, tuple[str | None, Callable[[U64, int], Walker]]] = {
    "numba": ("numba", numba_walker),
    "numpy": (None, numpy_walker),
    "Python": (None, python_walker),
    "drgn": ("drgn", drgn_walker),
    "volatility3": ("volatility3", volatility3_walker),
}
