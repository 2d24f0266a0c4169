"""What a call from Python costs, and what protecting a range costs, as users see them.

Run with ``pytest benchmarks --benchmark-only``. Compare rows of one run; times of two machines,
or of two runs on a busy one, say nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import ptwalk
import pytest

BASE, PAGE = 0x100000000000, 4096


def registered(profile: str, length: int, *, touch: int) -> tuple[ptwalk.AddressSpace, Any]:
    """Return shared shmem registered for wp, with every `touch`-th page present."""
    mm = ptwalk.AddressSpace(profile)
    mm.mmap(BASE, length, "rw-", "shared", ptwalk.ShmemFile(length))
    mm.access_many(np.arange(BASE, BASE + length, touch * PAGE, dtype=np.uint64), write=True)
    uffd = mm.userfaultfd()
    uffd.register(BASE, length, "wp")
    return mm, uffd


def test_the_smallest_call(benchmark: Any) -> None:
    mm, _ = registered("6.18", 1 << 21, touch=1)
    benchmark(mm.entry, BASE)


@pytest.mark.parametrize("pages", [1, 16, 512])
def test_protect_and_resolve(benchmark: Any, pages: int) -> None:
    _, uffd = registered("6.18", 1 << 21, touch=1)

    def both() -> None:
        uffd.writeprotect(BASE, pages * PAGE)
        uffd.writeprotect(BASE, pages * PAGE, protect=False)

    benchmark(both)


@pytest.mark.parametrize("profile", ["uffd-wp-v2", "6.18"])
@pytest.mark.parametrize("touch", [1, 512], ids=["all present", "one page in 2 MiB"])
def test_protect_and_resolve_1_gib(benchmark: Any, profile: str, touch: int) -> None:
    _, uffd = registered(profile, 1 << 30, touch=touch)

    def both() -> None:
        uffd.writeprotect(BASE, 1 << 30)
        uffd.writeprotect(BASE, 1 << 30, protect=False)

    benchmark(both)


def test_export_1_gib(benchmark: Any) -> None:
    mm, _ = registered("6.18", 1 << 30, touch=1)
    out = np.empty(1 << 18, dtype=np.uint64)
    benchmark(lambda: mm.ptes(BASE, 1 << 30, out=out))


def test_translate_a_million_random_addresses(benchmark: Any) -> None:
    mm, _ = registered("6.18", 1 << 30, touch=1)
    addrs = BASE + np.random.default_rng(1).integers(0, 1 << 30, 1 << 20, dtype=np.uint64)
    benchmark(mm.translate, addrs)
