"""Runs the scripts of docs/scripts and compares what they print.

One that shows a table with pandas is skipped where that is not installed: nothing else needs it.

A `…` in the expected output stands for any text within a line, and alone in a line for any lines.
Since that text has another width, columns shift: two or more spaces are equal to two, and beside it
one is enough.
"""

from __future__ import annotations

import difflib
import importlib.util
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
    if line == "…":
        return r"(?:.*\n)*"
    text = ".*".join(map(re.escape, line.split("…")))
    return text.replace(r".*\ \ ", r".*\ +").replace(r"\ \ .*", r"\ +.*") + r"\n"


def fits(expected: list[str], printed: list[str]) -> bool:
    text = "".join(f"{line}\n" for line in printed)
    return re.fullmatch("".join(map(pattern, expected)), text) is not None


def needed_packages(script: Path) -> list[str]:
    """Name the packages that a script imports for itself and that ptwalk does not bring along."""
    return [name for name in ("pandas",) if f"import {name}" in script.read_text("utf-8")]


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
    missing = [name for name in needed_packages(script) if not importlib.util.find_spec(name)]
    if missing:
        pytest.skip(f"{script.name} shows its table with {missing[0]}, which is not installed")
    expected = columns(script.with_suffix(".out").read_text(encoding="utf-8"))
    printed = columns(run(script))
    assert fits(expected, printed), "\n".join(
        difflib.unified_diff(expected, printed, "expected", "printed", n=1)
    )


def test_a_changed_bit_is_noticed() -> None:
    assert fits(["0x…67  pfn …  P RW"], ["0x8000000000000067  pfn 0x12  P RW"])
    assert fits(["True  …  42"], ["True  0.5 42"])
    assert not fits(["True  …  42"], ["True  0.542"])
    assert not fits(["0x…67  pfn …  P RW"], ["0x8000000000000065  pfn 0x12  P RW"])


def test_a_missing_line_is_noticed() -> None:
    assert fits(["a", "…", "b"], ["a", "b"])
    assert fits(["a", "…", "b"], ["a", "1", "2", "b"])
    assert not fits(["a", "b"], ["a", "1", "b"])
    assert not fits(["a", "…", "b"], ["a", "1"])
