"""The recorded random PTE steps, driven through the public AddressSpace.

Steps of equal request share one table span: the words are stored side by side and changed by one
call (format in data/vectors/README.md). Counted pages are then compared as a sum per call, entries
one by one.
"""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from paths import pte_vector_files
from ptwalk import AddressSpace, Vm

BASE, PAGE = 0x7F0000000000, 4096
RIGHTS = Vm.READ | Vm.WRITE | Vm.MAYREAD | Vm.MAYWRITE | Vm.UFFD_WP


class Request(NamedTuple):
    newprot: int
    cp_flags: int
    anon: bool
    vm_softdirty: bool


class Steps(NamedTuple):
    """Steps of one request: old words, new words, counted pages."""

    old: list[int]
    new: list[int]
    pages: list[int]


def by_request(path: Path) -> dict[Request, Steps]:
    steps: dict[Request, Steps] = defaultdict(lambda: Steps([], [], []))
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            old, newprot, cp_flags, anon, softdirty, new, pages = json.loads(line)
            request = Request(int(newprot, 16), cp_flags, bool(anon), bool(softdirty))
            for column, value in zip(
                steps[request], (int(old, 16), int(new, 16), pages), strict=True
            ):
                column.append(value)
    return steps


def run(request: Request, old: list[int]) -> tuple[list[int], int]:
    """Return the entries after the call and the pages it counted."""
    mm, end = AddressSpace("uffd-wp-v2"), BASE + len(old) * PAGE
    flags = RIGHTS if request.anon else RIGHTS | Vm.SHARED | Vm.MAYSHARE
    flags |= Vm.SOFTDIRTY if request.vm_softdirty else Vm(0)
    mm.load_vma(BASE, end, flags, kind="anon" if request.anon else "shmem")
    mm.set_ptes(BASE, np.array(old, np.uint64))
    result = mm.change_protection(BASE, end, request.newprot, request.cp_flags)
    parts = (result.none_to_marker, result.marker_to_none, result.swap, result.present)
    assert result.pages == sum(parts)
    return mm.ptes(BASE, end - BASE).tolist(), result.pages


@pytest.mark.parametrize("path", pte_vector_files(), ids=lambda path: path.name)
def test_random_steps(path: Path) -> None:
    requests = by_request(path)
    assert sum(len(steps.old) for steps in requests.values()) >= 1000
    for request, steps in requests.items():
        new, pages = run(request, steps.old)
        wrong = [
            f"{old:#018x}: {got:#018x}, recorded {recorded:#018x}"
            for old, got, recorded in zip(steps.old, new, steps.new, strict=True)
            if got != recorded
        ]
        assert not wrong, (request, wrong[:3])
        assert pages == sum(steps.pages), request


@pytest.mark.parametrize("path", pte_vector_files(), ids=lambda path: path.name)
def test_steps_counted_one_by_one(path: Path) -> None:
    """A wrong count could cancel out in a sum: every hundredth step by itself."""
    every = [
        (request, *step)
        for request, steps in by_request(path).items()
        for step in zip(*steps, strict=True)
    ][::100]
    for request, old, new, pages in every:
        assert run(request, [old]) == ([new], pages)
