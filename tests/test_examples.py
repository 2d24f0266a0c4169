"""The programs of examples/ run; those of other people's fuzzers only where these are installed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import ptwalk
import pytest
from paths import REPO

PACKAGES = Path(ptwalk.__file__).parents[1]


def run(script: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, REPO / "examples" / script, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        env={**os.environ, "PYTHONPATH": str(PACKAGES)},
    )


def test_atheris_is_told_the_branches_of_the_executor(tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="atheris is not installed; pip install ptwalk[atheris]")
    done = run("fuzz_atheris.py", "-runs=5000", "-seed=1", tmp_path)
    assert done.returncode == 0, done.stderr
    covered = [int(number) for number in re.findall(r"cov: (\d+)", done.stderr)]
    assert covered[-1] >= covered[0] + 20
    assert len(list(tmp_path.iterdir())) >= 20
