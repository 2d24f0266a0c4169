"""Peers of the benchmark do what ptwalk does: loops over entries, and walkers of one image."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import numpy as np
import pytest
from ptwalk import workload
from ptwalk.bench import peers
from ptwalk.bench.dense import REQUESTS, Request
from ptwalk.bench.harness import U64
from ptwalk.bench.peers import Loop, Rules
from ptwalk.bench.walkers import NOWHERE, WALKERS, image

PMD = 2 << 20


def python_loop(words: U64, rules: Rules, exclusive: object) -> int:
    listed = words.tolist()
    pages = peers.python_loop(listed, rules, exclusive)
    words[:] = listed
    return pages


def branchy() -> Loop:
    return peers.numba_loops()[0]


def branch_free() -> Loop:
    return peers.numba_loops()[1]


LOOPS: dict[str, Callable[[], Loop]] = {
    "Python": lambda: python_loop,
    "numpy.where": lambda: peers.numpy_where,
    "numpy, masks": lambda: peers.numpy_masks,
    "numba, branchy": branchy,
    "numba, branch-free": branch_free,
}


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.profile)
@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_does_what_the_call_does(name: str, request_: Request) -> None:
    if name.startswith("numba") and importlib.util.find_spec("numba") is None:
        pytest.skip("numba is not installed; it is in the dependency group bench")
    loop = LOOPS[name]()
    w = workload.build(
        "25/25/25/25", length=40 * PMD, profile=request_.profile, backing=request_.backing
    )
    words = w.mm.ptes(w.start, w.length)
    exclusive = np.zeros(1 << 21, bool)
    if request_.backing == "anon":
        w.mm.fork()  # the pages so far are shared, those of the next stores exclusive
        stores = w.start + 4096 * np.arange(0, len(words), 3, dtype=np.uint64)
        w.mm.access_many(stores, write=True)
        words = w.mm.ptes(w.start, w.length)
        pages_ = w.mm.pages(w.start, w.length)
        exclusive[pages_["pfn"][pages_["flags"] & 4 != 0]] = True
    for protect, rules in zip(
        (True, False), request_.rules(workload.marker(request_.profile)), strict=True
    ):
        pages = loop(words, rules, exclusive)
        assert pages == w.uffd.writeprotect(w.start, w.length, protect=protect).pages
        np.testing.assert_array_equal(words, w.mm.ptes(w.start, w.length))


@pytest.mark.parametrize("name", WALKERS)
def test_a_walker_finds_what_translate_finds(name: str) -> None:
    package, make = WALKERS[name]
    if package is not None and importlib.util.find_spec(package) is None:
        pytest.skip(f"{name} is not installed; it is in the dependency group bench")
    w = workload.build("70/15/10/5", length=600 << 30, tables=1 / 1024)
    rng = np.random.default_rng(3)
    near = w.start + rng.integers(0, PMD, 300, dtype=np.uint64)
    far = w.start + rng.integers(-PMD, w.length + PMD, 300, dtype=np.int64).astype(np.uint64)
    addrs = np.concatenate([near, far, np.array([0, 2**47 - 1], np.uint64)])
    expected = w.mm.translate(addrs)
    assert 100 < np.count_nonzero(expected != np.uint64(NOWHERE)) < 400
    found = np.array(make(*image(w.mm))(addrs), np.uint64)
    np.testing.assert_array_equal(found, expected)


def test_the_compiled_walk_follows_huge_leaves() -> None:
    from ptwalk.bench import walkers

    leaf = 0x80000000000000E7
    w = workload.build("present", length=PMD)
    w.mm.alloc_table(w.start + (1 << 39), "pgd")
    w.mm.set_entry(w.start + (1 << 39), "pud", 3 << 30 | leaf)
    w.mm.set_entry(w.start + PMD, "pmd", 5 * PMD | leaf)
    tables, root = image(w.mm)
    addrs = w.start + np.array([0, PMD + 0x12345, (1 << 39) + 0x1234567], np.uint64)
    out = np.empty_like(addrs)
    walkers._walk(tables.ravel(), np.uint64(root), addrs, out)
    np.testing.assert_array_equal(out, w.mm.translate(addrs))
    assert out[1] == 5 * PMD + 0x12345
    assert out[2] == (3 << 30) + 0x1234567
