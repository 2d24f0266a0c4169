"""The demonstration: it runs, is fit to paste, and what it says is so."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache

import pytest
from ptwalk import demo, running_kernel

Capture = pytest.CaptureFixture[str]


def table_row(text: str, label: str) -> list[str]:
    """Return the cells of the first row that starts with `label`."""
    row = next(line for line in text.splitlines() if line.startswith(label))
    return re.split(r"  +", row[len(label) :].strip())


def test_the_story_shows_the_entries_of_three_kernels(capsys: Capture) -> None:
    demo.story()
    text = capsys.readouterr().out
    assert table_row(text, "register, mode wp") == ["EINVAL", "done", "done"]
    assert table_row(text, "write-protect 4 MiB") == [
        "pages=1, 1023 none left",
        "pages=1024",
        "pages=1024",
    ]
    assert table_row(text, "none PTE, wr-protect") == [
        "none",
        "0x0000000000000004",
        "0xfffffffffffffc00",
    ]
    assert table_row(text, "written PTE, wr-protect") == [
        "0x8000000000000c65",
        "0x8000000000000c65",
        "0x8400000000000425",
    ]
    assert table_row(text, "write page 2") == ["done", "blocked, WRITE|WP", "blocked, WRITE|WP"]
    assert table_row(text, "  PTE of page 3") == ["none"] * 3
    assert table_row(text, "write page 3") == ["done"] * 3
    assert "goes unseen under 5.12: " in text
    decoded = re.findall(r"^  (0x[0-9a-f]{16})  (\w+) +(.*)$", text, re.MULTILINE)
    assert ("0x0000000000000004", "marker", "uffd-wp special pte") in decoded
    assert {word for word, _, _ in decoded} == set(re.findall(r"0x[0-9a-f]{16}", text))


def test_the_running_kernel_is_asked_or_it_is_said_why_not(capsys: Capture) -> None:
    demo.judge()
    text = capsys.readouterr().out
    if refused := running_kernel.available():
        assert refused in text
    else:
        assert text.startswith(f"running kernel agrees with 6.18: {len(demo.SCENES)} steps")


@pytest.mark.skipif(running_kernel.available() is not None, reason="userfaultfd is not allowed")
def test_a_wrong_model_is_told_from_the_running_kernel() -> None:
    with running_kernel.KernelSpace() as kernel:
        running = demo._Running(kernel)
        wrong = demo._Model("5.12", running.start, MEM_SOFT_DIRTY=False)  # leaves none PTEs alone
        differences = list(demo._compare(running, wrong))
    assert "register, mode wp: done, the model EINVAL" in differences
    assert any(text.startswith("write-protect 4 MiB: 102") for text in differences)
    assert "write page 2: blocked, WRITE|WP, the model done" in differences


@cache
def whole_demo() -> str:
    """Return what the whole demonstration prints, run once, in a process of usual size."""
    command = [sys.executable, "-m", "ptwalk", "demo"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_it_fits_in_100_columns() -> None:
    assert max(map(len, whole_demo().splitlines())) <= 100


def test_it_names_what_to_try_next() -> None:
    assert "ptwalk explain" in whole_demo().rpartition("Next:")[2]


def numbers(row: list[str]) -> list[int]:
    return [0 if cell == "-" else int(cell.replace(",", "")) for cell in row]


def test_the_table_of_this_process_adds_up() -> None:
    text = whole_demo()
    lines = [line.strip() for line in text.splitlines()]
    head = next(i for i, line in enumerate(lines) if re.match(r"VMAs +pages ", line))
    end = lines.index("", head)
    rows = [re.split(r"  +", line) for line in lines[head + 1 : end]]
    assert [row[0] for row in rows][-1] == "all"
    for _, _vmas, pages, *kinds in ([row[0], *numbers(row[1:])] for row in rows):
        assert pages == sum(map(int, kinds))
    columns = [numbers(row[1:]) for row in rows]
    assert [sum(column) for column in zip(*columns[:-1], strict=True)] == columns[-1]


def test_resolving_undoes_what_protecting_did() -> None:
    text = whole_demo()
    line = next(line for line in text.splitlines() if "none_to_marker" in line)
    head = re.split(r"  +", line.strip())
    protect, resolve = (
        dict(zip(head, numbers(table_row(text, f"  {name}")), strict=True))
        for name in ("write-protect", "resolve")
    )
    assert protect["present"] == resolve["present"] > 0
    assert protect["none_to_marker"] == resolve["marker_to_none"] > 0
    assert protect["marker_to_none"] == resolve["none_to_marker"] == 0
