"""The native parts of the benchmark do what they are timed for."""

from __future__ import annotations

import numpy as np
import ptwalk
import pytest
from ptwalk import InvalidArgument, KernelError, _core, workload
from ptwalk.workload import Backing

PMD = 2 << 20
REQUESTS: list[tuple[str, Backing]] = [
    ("uffd-wp-v2", "shmem"),
    ("6.1", "private-file"),
    ("6.18", "anon"),
]


def space(profile: str = "6.18", backing: Backing = "anon") -> workload.Workload:
    return workload.build("25/25/25/25", length=4 * PMD, profile=profile, backing=backing)


@pytest.mark.parametrize(("profile", "backing"), REQUESTS)
@pytest.mark.parametrize("kernel", ptwalk.kernels())
def test_a_kernel_alone_does_to_an_array_what_the_call_does(
    kernel: str, profile: str, backing: Backing
) -> None:
    w = space(profile, backing)
    words = w.mm.ptes(w.start, w.length)
    for protect in (True, False):
        pages = _core.apply_kernel(kernel, w.mm._core, w.start, protect, words)
        assert pages == w.uffd.writeprotect(w.start, w.length, protect=protect).pages
        np.testing.assert_array_equal(words, w.mm.ptes(w.start, w.length))


def test_a_kernel_needs_a_name_and_a_vma() -> None:
    w = space()
    words = np.zeros(512, np.uint64)
    with pytest.raises(InvalidArgument, match="kernel 'sse' is not known; use one of scalar"):
        _core.apply_kernel("sse", w.mm._core, w.start, True, words)
    with pytest.raises((InvalidArgument, KernelError), match="0x0000000000001000"):
        _core.apply_kernel("scalar", w.mm._core, 4096, True, words)


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(("profile", "backing"), REQUESTS)
def test_entries_are_put_back_and_nothing_else_changes(
    profile: str, backing: Backing, known: bool
) -> None:
    w = space(profile, backing)
    before, facts = w.mm.ptes(w.start, w.length), w.mm.pages(w.start, w.length)
    w.uffd.writeprotect(w.start, w.length)
    w.uffd.writeprotect(w.start, w.length, protect=False)
    assert not np.array_equal(w.mm.ptes(w.start, w.length), before)  # markers are gone
    _core.restore_ptes(w.mm._core, w.start, before, known)
    np.testing.assert_array_equal(w.mm.ptes(w.start, w.length), before)
    np.testing.assert_array_equal(w.mm.pages(w.start, w.length), facts)
    assert w.mm.validate() == []
    same = space(profile, backing)
    for protect in (True, False):
        done = w.uffd.writeprotect(w.start, w.length, protect=protect)
        assert done == same.uffd.writeprotect(same.start, same.length, protect=protect)
        assert w.mm.validate() == []


def test_entries_are_put_back_into_a_shared_table_too() -> None:
    w = workload.build("untouched", length=4 * PMD)
    w.uffd.writeprotect(w.start, w.length)
    words = np.arange(512, dtype=np.uint64) * np.uint64(0)
    _core.restore_ptes(w.mm._core, w.start + PMD, words, True)
    assert w.mm.count(w.start, w.length) == {"marker": 3 * 512, "none": 512}


def test_only_whole_tables_that_exist_are_put_back() -> None:
    w = workload.build("untouched", length=4 * PMD)
    words = np.zeros(512, np.uint64)
    with pytest.raises(InvalidArgument, match="multiples of 2 MiB"):
        _core.restore_ptes(w.mm._core, w.start + 4096, words, True)
    with pytest.raises(InvalidArgument, match="multiples of 2 MiB"):
        _core.restore_ptes(w.mm._core, w.start, words[:100], True)
    with pytest.raises(InvalidArgument):
        _core.restore_ptes(w.mm._core, w.start, words, True)


@pytest.mark.parametrize("threads", [1, 2])
def test_read_modify_write(threads: int) -> None:
    words = np.random.default_rng(1).integers(0, 2**64, 100_003, dtype=np.uint64)
    expected = words & np.uint64(0xFF00) | np.uint64(3)
    _core.read_modify_write(words, 0xFF00, 3, threads, 2)
    np.testing.assert_array_equal(words, expected)


def test_copies() -> None:
    words, out = np.arange(1000, dtype=np.uint64), np.zeros(1000, np.uint64)
    _core.copy_words(out, words, 1)
    np.testing.assert_array_equal(out, words)
    with pytest.raises(InvalidArgument, match="out has 999 words for 1000"):
        _core.copy_words(out[:999], words, 1)


def test_the_compiler_is_named() -> None:
    assert _core.compiler.split()[0] in ("GCC", "Clang")
