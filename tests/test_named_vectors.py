"""The named cases of section 9 of the v2 spec, driven through the public AddressSpace.

Here groups A B N S M (one entry) and T P W (tables); I and F are in test_named_faults.py. Group H
is left out: hugetlb is not modelled.
"""

from __future__ import annotations

import re

import numpy as np
import ptwalk
import pytest
from named_vectors import CASES, Case, group
from ptwalk import AddressSpace, ProtectResult, ShmemFile, Vm

V2, V2_11 = "uffd-wp-v2", "uffd-wp-v2-11"
BASE, PAGE, HUGE = 0x7F0000000000, 4096, 2 << 20
GIB = 1 << 30
PFN_FIELD = 0x000F_FFFF_FFFF_F000
MARKER = 0x4
NONE_WORD, READ_WORD, SHARED_WRITE_WORD = 0x120, 0x8000000000000025, 0x8000000000000027


def test_only_hugetlb_is_left_out() -> None:
    assert {case["id"][0] for case in CASES} - set("ABNSMTPWIF") == {"H"}
    assert {case["level"] for case in CASES if case["id"][0] == "H"} == {"hugetlb 2M"}
    with pytest.raises(ptwalk.InvalidArgument, match="hugetlb is not modelled"):
        AddressSpace().mmap(None, HUGE, "rw-", "shared", ptwalk.HugetlbFile(HUGE))


# --- one entry ------------------------------------------------------------------------------------
def vma_kind(text: str) -> str:
    if text.startswith("anon"):
        return "anon"
    if "dax" in text:
        return "dax"
    return "regular" if text.startswith(("file", "same")) else "shmem"


def vma_prot(text: str) -> str:
    """Return the permissions of a case, those after "->" where they change."""
    text = text.rsplit("->", maxsplit=1)[-1]
    for word, prot in {"rwx": "rwx", " ro": "r--", "write-only": "-w-", "NONE": "---"}.items():
        if word in text:
            return prot
    return "rw-"


def vm_flags(text: str) -> Vm:
    flags = Vm.MAYREAD | Vm.MAYWRITE | Vm.MAYEXEC | Vm.UFFD_WP
    for letter, flag in zip(vma_prot(text), (Vm.READ, Vm.WRITE, Vm.EXEC), strict=True):
        flags |= flag if letter != "-" else Vm(0)
    if vma_kind(text) != "anon" and "private" not in text:
        flags |= Vm.SHARED | Vm.MAYSHARE
    if "VM_SOFTDIRTY clear" not in text:
        flags |= Vm.SOFTDIRTY
    return flags


CP_FLAGS = {
    "WP": ptwalk.MM_CP_UFFD_WP,
    "RESOLVE": ptwalk.MM_CP_UFFD_WP_RESOLVE,
    "mprotect": ptwalk.MmCp(0),
    "mprotect+DIRTY_ACCT": ptwalk.MM_CP_DIRTY_ACCT,
    "PROT_NUMA": ptwalk.MM_CP_PROT_NUMA,
}


def check_entry(mm: AddressSpace, case: Case, result: ProtectResult) -> None:
    flush = {"yes": (BASE, BASE + PAGE), "no": None}[case["flush"]]
    assert f"{mm.entry(BASE):#018x}" == case["new"]
    assert (result.pages, result.flush) == (case["pages"], flush)


@pytest.mark.parametrize("profile", [V2, V2_11])
@pytest.mark.parametrize("case", group("ABNSM"))
def test_entry(case: Case, profile: str) -> None:
    found = re.fullmatch(r"([\w+]+) \(newprot (0x[0-9a-f]+)\)", case["req"])
    assert found, case["req"]
    mm = AddressSpace(profile)
    mm.load_vma(BASE, BASE + HUGE, vm_flags(case["vma"]), kind=vma_kind(case["vma"]))
    mm.set_ptes(BASE, np.array([int(case["old"], 16)], np.uint64))
    result = mm.change_protection(BASE, BASE + PAGE, int(found[2], 16), CP_FLAGS[found[1]])
    check_entry(mm, case, result)


@pytest.mark.parametrize(
    "case",
    [
        param
        for param in group("ASM")
        if param.values[0]["req"].startswith(("WP", "RESOLVE"))
        and vma_kind(param.values[0]["vma"]) in ("anon", "shmem")
    ],
)
def test_entry_by_ioctl(case: Case) -> None:
    """Here the kernel chooses the protection word, by flags and protection key."""
    text, mm = case["vma"], AddressSpace(V2)
    file = None if vma_kind(text) == "anon" else ShmemFile(HUGE)
    backing = "shared" if vm_flags(text) & Vm.SHARED else "private"
    mm.mmap(BASE, HUGE, vma_prot(text), backing if file else f"{backing}|anonymous", file)
    if pkey := re.search(r"pkey (\d+)", text):
        mm.set_vm_flags(BASE, HUGE, add=int(pkey[1]) << 32)
    uffd = mm.userfaultfd()
    uffd.register(BASE, HUGE, "wp")
    mm.set_ptes(BASE, np.array([int(case["old"], 16)], np.uint64))
    protect = case["req"].startswith("WP")
    check_entry(mm, case, uffd.writeprotect(BASE, PAGE, protect=protect))


# --- PMD entries and tables -----------------------------------------------------------------------
def table_space(profile: str, kind: str, level: str, word: int) -> AddressSpace:
    """Return 1 GiB of memory, its tables complete down to `level`, which holds `word`."""
    mm = AddressSpace(profile)
    mm.load_vma(BASE, BASE + GIB, vm_flags(f"{kind} rw"), kind=vma_kind(kind))
    for above in {"pgd": [], "pud": ["pgd"], "pmd": ["pgd", "pud"]}[level]:
        mm.alloc_table(BASE, above)
    mm.set_entry(BASE, level, word)
    return mm


def table_request(case: Case) -> tuple[int, int, int, ptwalk.MmCp]:
    """Return start, end, newprot and cp_flags of a case of group T or P."""
    anon, req = case["vma"].startswith("anon"), case["req"]
    start, end = 0, GIB if "1G" in req else HUGE
    if part := re.search(r"\[(\d+)K?,(\d+)K\)", req + case["vma"]):
        start, end = int(part[1]) << 10, int(part[2]) << 10
    if req.startswith("WP"):
        newprot = READ_WORD
    elif req.startswith("RESOLVE"):
        newprot = READ_WORD if anon else SHARED_WRITE_WORD
    else:
        newprot = READ_WORD if req == "mprotect RO" else NONE_WORD
    return BASE + start, BASE + end, newprot, CP_FLAGS[re.split(r"[ ,]", req)[0]]


def new_ptes(text: str) -> list[int]:
    """Return the 512 words of a case's "table; …"."""
    if found := re.fullmatch(r"table; all 512 = (0x[0-9a-f]+)", text):
        return [int(found[1], 16)] * 512
    words = [0] * 512
    named = re.findall(r"pte(\d+)(?:\.\.(\d+))?=(0x[0-9a-f]+)( \(\+0x1000 each\))?", text)
    assert named, text
    for first, last, word, rising in named:
        for i in range(int(first), int(last or first) + 1):
            words[i] = int(word, 16) + ((i - int(first)) * 0x1000 if rising else 0)
    return words


def check_flushes(case: Case, result: ProtectResult, span: tuple[int, int]) -> None:
    kinds = set(case["flush"].split(" + "))
    assert kinds <= {"pmd", "range", "clear", "split", "clear only", "no"}
    split = bool(kinds & {"clear", "clear only", "split"})
    assert result.flush == (span if "range" in kinds else None)
    assert result.pmd_flush == ((BASE,) if split or "pmd" in kinds else ())
    assert ("clear", BASE, BASE + HUGE) in result.notifier or not split
    assert result.thp_split_pmd == split


@pytest.mark.parametrize("case", group("TP"))
def test_table(case: Case) -> None:
    kind = case["vma"].split()[0]
    level, old = ("pgd", 0) if "pud none" in case["vma"] else ("pmd", int(case["old"], 16))
    mm = table_space(V2_11 if case["id"][0] == "P" else V2, kind, level, old)
    start, end, newprot, cp_flags = table_request(case)
    tables = mm.stats.tables_modelled
    mm.fail_table_alloc("fails" in case["req"])
    result = mm.change_protection(start, end, newprot, cp_flags)
    check_flushes(case, result, (start, end))
    assert result.pages == case["pages"]
    assert len(result.warnings) == ("fails" in case["req"])
    new = case["new"]
    if new.startswith("table; "):
        assert mm.stats.tables_modelled == tables + 1
        assert mm.ptes(BASE, HUGE).tolist() == new_ptes(new)
    elif new == "no tables allocated":
        assert (mm.stats.tables_modelled, mm.entry(BASE, "pgd")) == (tables, 0)
    else:
        word = {"unchanged": old, "none (0)": 0}.get(new)
        assert mm.entry(BASE, "pmd") == (int(new, 16) if word is None else word)
        assert mm.stats.tables_modelled == tables
    whole = result.pages == HUGE // PAGE and not new.startswith("table; ")
    assert result.numa_huge_pte_updates == result.huge == whole


ANY_REQUEST = [
    (READ_WORD, CP_FLAGS["WP"]),
    (SHARED_WRITE_WORD, CP_FLAGS["RESOLVE"]),
    (NONE_WORD, CP_FLAGS["mprotect"]),
    (NONE_WORD, CP_FLAGS["PROT_NUMA"]),
]


@pytest.mark.parametrize("case", group("W"))
def test_walk_sanity(case: Case) -> None:
    level, old, new = case["level"].lower(), int(case["old"], 16), case["new"]
    requests = ANY_REQUEST if case["req"] == "any" else ANY_REQUEST[:1]
    for newprot, cp_flags in requests:
        if new.startswith("walked"):
            mm = table_space(V2, "shmem-shared", level, 0)
            mm.alloc_table(BASE, level, old & 0xFFF)
            mm.set_ptes(BASE, np.full(3, 0x12345867, np.uint64))
            result = mm.change_protection(BASE, BASE + 3 * PAGE, newprot, cp_flags)
            assert (result.pages, result.present, result.bad_cleared) == (3, 3, ())
            assert 0x12345867 not in mm.ptes(BASE, 3 * PAGE)
            continue
        mm = table_space(V2, "shmem-shared", level, old)
        result = mm.change_protection(BASE, BASE + HUGE, newprot, cp_flags)
        assert result.pages == case["pages"]
        assert result.flush == ((BASE, BASE + HUGE) if case["flush"] == "range" else None)
        cleared = new == "0 (cleared)"
        assert result.bad_cleared == (((level, BASE),) if cleared else ())
        if "markers" in new:
            assert set(mm.ptes(BASE, HUGE).tolist()) == {MARKER}
        else:
            assert mm.entry(BASE, level) == (0 if cleared else old)
