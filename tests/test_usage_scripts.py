"""Runs the scripts of docs/scripts and compares what they print.

A `…` in the expected output stands for any text within a line, and alone in a line for any lines.
Since that text has another width, columns shift: two or more spaces are equal to two.
"""

from __future__ import annotations

import difflib
import os
import re
import subprocess
import sys
from pathlib import Path

import ptwalk
import pytest
from paths import REPO

SCRIPTS = sorted((REPO / "docs" / "scripts").glob("*.py"))
PACKAGES = Path(ptwalk.__file__).parents[1]


def columns(text: str) -> list[str]:
    return [re.sub(" {2,}", "  ", line.rstrip()) for line in text.splitlines()]


def pattern(line: str) -> str:
    return r"(?:.*\n)*" if line == "…" else ".*".join(map(re.escape, line.split("…"))) + r"\n"


def fits(expected: list[str], printed: list[str]) -> bool:
    text = "".join(f"{line}\n" for line in printed)
    return re.fullmatch("".join(map(pattern, expected)), text) is not None


def run(script: Path) -> str:
    done = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(PACKAGES), "PYTHONUTF8": "1"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_scripts_are_there() -> None:
    assert len(SCRIPTS) >= 5


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_output(script: Path) -> None:
    expected = columns(script.with_suffix(".out").read_text(encoding="utf-8"))
    printed = columns(run(script))
    assert fits(expected, printed), "\n".join(
        difflib.unified_diff(expected, printed, "expected", "printed", n=1)
    )


def test_a_changed_bit_is_noticed() -> None:
    assert fits(["0x…67  pfn …  P RW"], ["0x8000000000000067  pfn 0x12  P RW"])
    assert not fits(["0x…67  pfn …  P RW"], ["0x8000000000000065  pfn 0x12  P RW"])


def test_a_missing_line_is_noticed() -> None:
    assert fits(["a", "…", "b"], ["a", "b"])
    assert fits(["a", "…", "b"], ["a", "1", "2", "b"])
    assert not fits(["a", "b"], ["a", "1", "b"])
    assert not fits(["a", "…", "b"], ["a", "1"])
