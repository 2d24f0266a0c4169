"""The leaf kernels from Python: one is pinned by PTWALK_KERNEL, and all give the same results.

The variable is read once in a process, so that each kernel gets a process of its own. It makes the
same requests on the same random tables and prints what came of them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import ptwalk
import pytest
from ptwalk import AddressSpace, ShmemFile

BASE, PAGE, LENGTH = 0x7F0000000000, 4096, 2 << 20
PTES = LENGTH // PAGE
WP, RESOLVE, TRY = 4, 8, 1
READ, READ_WRITE, NONE = 0x8000000000000025, 0x8000000000000027, 0x8000000000000120


def run(code: str, kernel: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a process whose kernel is pinned."""
    environment = {**os.environ, "PTWALK_KERNEL": kernel}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )


def random_words(rng: np.random.Generator, classes: int, marker: int) -> np.ndarray:
    """Return a table of the first few classes: present, none, marker, swap, special, noise."""
    pfns = np.where(rng.random(PTES) < 0.9, 0x180000 + np.arange(PTES), rng.integers(0, 1 << 40))
    flags = rng.integers(0, 1 << 12, PTES).astype(np.uint64) & np.uint64(0xCFE) | np.uint64(1)
    nx = rng.integers(0, 2, PTES).astype(np.uint64) << np.uint64(63)
    present = pfns.astype(np.uint64) << np.uint64(12) | flags | nx
    offsets = ~rng.integers(0, 1 << 30, PTES).astype(np.uint64) << np.uint64(14) >> np.uint64(5)
    swap = offsets | rng.integers(0, 8, PTES).astype(np.uint64) << np.uint64(1)
    special = swap | rng.integers(20, 32, PTES).astype(np.uint64) << np.uint64(59)
    noise = rng.integers(0, 1 << 64, PTES, np.uint64)
    zeros = np.zeros(PTES, np.uint64)
    choices = [present, zeros, np.full(PTES, marker, np.uint64), swap, special, noise]
    return np.choose(rng.integers(0, classes, PTES), choices)


def results(profile: str) -> str:
    """Make random requests under a profile; return a digest of all words and counts."""
    rng = np.random.default_rng(1)
    digest = sha256()
    marker = 0x4 if profile.startswith("uffd") else 0xFFFFFFFFFFFFFC00
    for shared in (False, True):
        for classes in (1, 2, 3, 4, 4, 5, 6):
            mm = AddressSpace(profile)
            flags = ptwalk.VM_READ | ptwalk.VM_WRITE | ptwalk.VM_MAYREAD | ptwalk.VM_MAYWRITE
            flags |= ptwalk.VM_UFFD_WP
            if shared:
                flags |= ptwalk.VM_SHARED
            file = ShmemFile(LENGTH) if shared else None
            mm.load_vma(BASE, BASE + LENGTH, flags, kind="shmem" if shared else "anon", file=file)
            mm.set_ptes(BASE, random_words(rng, classes, marker))
            for _ in range(12):
                start, end = sorted(rng.integers(0, PTES + 1, 2).tolist())
                if rng.random() < 0.6:
                    start, end = 0, PTES  # what is known of the whole table from the last request
                if start == end:
                    continue
                prot = int(rng.choice([READ, READ_WRITE, NONE], p=[0.45, 0.45, 0.1]))
                how = int(rng.choice([WP, RESOLVE | TRY, RESOLVE, TRY, 0]))
                done = mm.change_protection(BASE + start * PAGE, BASE + end * PAGE, prot, how)
                digest.update(f"{done!r}{done.flush}".encode())
                digest.update(mm.ptes(BASE, LENGTH).tobytes())
            assert not [line for line in mm.validate() if "facts" in line]  # raw words void others
    return digest.hexdigest()


@pytest.fixture(scope="module")
def printed() -> dict[str, str]:
    """Return what each kernel's process prints: its name, then a digest for each profile."""
    here = str(Path(__file__).resolve().parent)
    code = (
        f"import sys; sys.path.insert(0, {here!r}); import ptwalk, test_kernels as t\n"
        "print(ptwalk.kernels()[-1], *map(t.results, ptwalk.profiles()))"
    )
    done = {kernel: run(code, kernel) for kernel in supported()}
    for kernel, process in done.items():
        assert process.returncode == 0, f"{kernel}: {process.stderr}"
    return {kernel: process.stdout for kernel, process in done.items()}


def supported() -> list[str]:
    """Return the kernels that this processor can run, whichever is pinned here."""
    done = run("import ptwalk; print(*ptwalk.kernels())", "")
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_scalar_and_vector_are_everywhere() -> None:
    assert supported()[:2] == ["scalar", "vector"]


def test_each_kernel_can_be_pinned(printed: dict[str, str]) -> None:
    assert {kernel: text.split()[0] for kernel, text in printed.items()} == {
        kernel: kernel for kernel in supported()
    }


def test_all_kernels_give_the_same_results(printed: dict[str, str]) -> None:
    digests = {kernel: text.split()[1:] for kernel, text in printed.items()}
    assert len(digests["scalar"]) == len(ptwalk.profiles())
    assert all(digest == digests["scalar"] for digest in digests.values())


def test_another_name_is_refused_with_the_list() -> None:
    done = run("import ptwalk; ptwalk.kernels()", "avx3")
    assert done.returncode != 0
    assert "PTWALK_KERNEL=avx3" in done.stderr
    for kernel in supported():
        assert kernel in done.stderr
