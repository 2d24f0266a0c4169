"""Proves the leaf model's 6.x rules against entries read on running kernels.

Every successful writeprotect and mprotect of a recorded program is one request; each page that had
a PTE table before it must hold afterwards what the model makes of its recorded word. Left out:
large folios, ext4 (write-notify), locked VMAs (mprotect then also populates), pages without a
table, regions of more than 512 pages (they are about tables), regions with an mmap_fixed in them.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from paths import trace_files
from ptwalk.fuzz import leaf_model as lm
from ptwalk.fuzz.leaf_model import PageFacts, classify, leaf_step

Step = dict[str, Any]
Page = dict[str, Any]

# Protection words by VM_READ | VM_WRITE | VM_EXEC (arch/x86/mm/pgprot.c:protection_map).
_NX = 1 << 63
PRIVATE = (0x120, _NX | 0x25, _NX | 0x25, _NX | 0x25, 0x25, 0x25, 0x25, 0x25)
SHARED = (0x120, _NX | 0x25, _NX | 0x27, _NX | 0x27, 0x25, 0x25, 0x27, 0x27)


def access_bits(perm: str) -> int:
    """Return VM_READ, VM_WRITE and VM_EXEC of "rw-" or "rw"."""
    return lm.VM_READ * ("r" in perm) | lm.VM_WRITE * ("w" in perm) | lm.VM_EXEC * ("x" in perm)


class Regions:
    """The recorded pages and VMAs of one program, kept up to date step by step."""

    def __init__(self, program: dict[str, Any]) -> None:
        self.kernel: str = program["kernel"]
        self.specs = {
            region["name"]: region
            for region in program["regions"]
            if region["page_shift"] == 12
            and region["pages"] <= 512
            and region["backing"] in ("anon", "shmem", "memfd", "tmpfs")
        }
        features = program["uffd_features"] or []
        self.wp_unpopulated = "WP_UNPOPULATED" in features or "WP_ASYNC" in features
        self.pages: dict[tuple[str, str], dict[int, Page]] = {}
        self.vmas: dict[tuple[str, str], list[dict[str, Any]]] = {}

    def update(self, step: Step) -> None:
        if step["op"]["name"] == "mmap_fixed":
            self.specs.pop(step["op"]["region"], None)
        for proc, regions in step.get("state", {}).items():
            for name in regions.keys() & self.specs.keys():
                runs = regions[name]
                pages = self.pages.setdefault((proc, name), {})
                for run in runs:
                    pages.update(dict.fromkeys(range(run["i"], run["i"] + run["n"]), run))
        for proc, regions in step.get("vmas", {}).items():
            for name, vmas in regions.items():
                self.vmas[proc, name] = vmas

    def vma_of(self, proc: str, name: str, page: int) -> dict[str, Any] | None:
        for vma in self.vmas.get((proc, name), []):
            if vma["first"] <= page < vma["end"]:
                return vma
        return None

    def is_modelled(self, step: Step) -> bool:
        """Tell whether a step is a request whose outcome the leaf step alone decides."""
        op = step["op"]
        if op["name"] not in ("writeprotect", "mprotect") or step["result"]["ret"] != 0:
            return False
        return op["region"] in self.specs


def request(regions: Regions, op: Step, vma: dict[str, Any]) -> tuple[int, int, int] | None:
    """Return newprot, cp_flags and vm_flags; None when mprotect does not walk or also populates."""
    shared = regions.specs[op["region"]]["share"] == "shared"
    access = access_bits(vma["perm"])
    cp_flags = 0
    if op["name"] == "mprotect":
        if access == access_bits(op["prot"]) or "lo" in vma["flags"]:
            return None
        access = access_bits(op["prot"])
    elif "WP" in op["mode"]:
        cp_flags = lm.MM_CP_UFFD_WP
    else:
        cp_flags = lm.MM_CP_UFFD_WP_RESOLVE

    registered = "uw" in vma["flags"]
    if op["name"] == "writeprotect" and regions.kernel == "6.1":
        table = SHARED if shared else PRIVATE
        newprot = table[access & ~lm.VM_WRITE if cp_flags == lm.MM_CP_UFFD_WP else access]
    else:
        newprot = (SHARED if shared and not registered else PRIVATE)[access]
        # For shmem write-notify never asks for the upgrade: mainline.md, section 2, "Trap".
        if not shared and access & lm.VM_WRITE and cp_flags != lm.MM_CP_UFFD_WP:
            cp_flags |= lm.MM_CP_TRY_CHANGE_WRITABLE
    vm_flags = access | lm.VM_MAYWRITE | lm.VM_SHARED * shared | lm.VM_UFFD_WP * registered
    return newprot, cp_flags, vm_flags | lm.VM_SOFTDIRTY * ("sd" in vma["flags"])


def masked(kernel: str, word: int) -> tuple[str, int]:
    """Return kind and word without what traces leave out (their README, "Run")."""
    kind = classify(kernel, None, word)
    if kind == "present":
        return kind, word & ~lm.PFN_FIELD
    if kind in ("swap", "migration", "hwpoison"):
        return kind, word & ~lm.SWP_OFFSET_FIELD
    return kind, word


def raw_word(page: Page) -> int:
    word = int(page.get("raw", "0x0"), 16)
    # Traces clear the offset of a swap entry; area 0 without one would read as none.
    return word | lm.SWP_OFFSET_FIELD if page["cls"] in ("swap", "migration", "hwpoison") else word


def check_program(program: dict[str, Any]) -> Iterator[str]:
    """Hold every request of a program against the model; yield what happened to each page."""
    regions = Regions(program)
    kernel = regions.kernel
    for number, step in enumerate(program["steps"]):
        op, proc = step["op"], step["proc"]
        before: dict[int, Page] = {}
        vmas: dict[int, dict[str, Any]] = {}
        if regions.is_modelled(step):
            pages = regions.pages.get((proc, op["region"]), {})
            for i in range(op["first"], op["first"] + op["count"]):
                vma = regions.vma_of(proc, op["region"], i)
                if vma and i in pages and pages[i]["lvl"] == "pte":
                    before[i], vmas[i] = pages[i], vma
        regions.update(step)
        for i, page in before.items():
            asked = request(regions, op, vmas[i])
            if asked is None or "thp" in page.get("pk", ""):
                continue
            newprot, cp_flags, vm_flags = asked
            new, _, counter = leaf_step(
                kernel,
                raw_word(page),
                newprot,
                cp_flags,
                anon=regions.specs[op["region"]]["backing"] == "anon",
                vm_flags=vm_flags,
                page=PageFacts(
                    normal=page.get("pk") != "zero",
                    anon=page.get("pk") == "anon",
                    exclusive=page.get("ex") == 1,
                ),
                wp_unpopulated=regions.wp_unpopulated,
            )
            after = regions.pages[proc, op["region"]][i]
            where = (program["id"], number, i)
            assert masked(kernel, new) == masked(kernel, raw_word(after)), (where, op, page, after)
            assert classify(kernel, None, new) == after["cls"], (where, op, page, after)
            yield counter or "unchanged"


@pytest.mark.parametrize("kernel", ["6.1", "6.12", "6.18"])
def test_requests_of_traces(kernel: str) -> None:
    seen: Counter[str] = Counter()
    for path in trace_files(kernel=kernel):
        for program in programs(path):
            seen.update(check_program(program))
    assert min(seen[name] for name in ("present", "none_to_marker", "marker_to_none")) > 100, seen
    assert min(seen[name] for name in ("swap", "none_skipped", "unchanged")) > 10, seen


def programs(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        next(lines)  # the header
        yield from map(json.loads, lines)
