"""The script of a fuzzer of one's own prints the same on every run, whichever kernel runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import ptwalk
from paths import REPO

SCRIPT = REPO / "docs" / "scripts" / "own_fuzzer.py"


def printed(kernel: str) -> list[str]:
    packages = str(Path(ptwalk.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, SCRIPT],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": packages, "PTWALK_KERNEL": kernel},
    )
    return done.stdout.splitlines()


def test_its_last_line_is_the_same_for_every_kernel_and_it_finds_nothing() -> None:
    first, *others = [printed(kernel) for kernel in ("scalar", ptwalk.kernels()[-1])]
    assert len(first) == 1
    assert all(other == first for other in others)
