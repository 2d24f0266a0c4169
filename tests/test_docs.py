"""Runs every example of README.md and docs/*.md, and compares what it prints with what is shown.

The ``python`` blocks of a page run one after another in one namespace, in the root of the
repository; so does each ``$ ptwalk …`` line of a ``console`` block. A ``text`` block directly
behind a ``python`` block is its output. In shown output `…` stands for any text within a line, a
line `…` for any lines, and two or more spaces are equal to two.
"""

from __future__ import annotations

import difflib
import re
import shlex
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from paths import REPO
from ptwalk.cli import main

PAGES = [REPO / "README.md", *sorted((REPO / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LANGUAGES = {"python", "text", "console", "sh", ""}

Capture = pytest.CaptureFixture[str]


class Block(NamedTuple):
    """A fenced block, the line that it begins at, and the block after it if nothing is between."""

    language: str
    code: str
    line: int
    shown: str | None


def blocks(text: str) -> list[Block]:
    found = list(FENCE.finditer(text))
    following = [*found[1:], None] if found else []
    out = []
    for block, after in zip(found, following, strict=True):
        shown = None
        if after and after[1] == "text" and not text[block.end() : after.start()].strip():
            shown = after[2]
        out.append(Block(block[1], block[2], text[: block.start()].count("\n") + 2, shown))
    return out


def same(shown: str, printed: str) -> bool:
    pattern = ""
    for line in re.sub(" {2,}", "  ", shown).splitlines():
        parts = ".*".join(map(re.escape, line.rstrip().split("…")))
        pattern += r"(?:.*\n)*?" if line.strip() == "…" else parts + "\n"
    printed = "".join(f"{line.rstrip()}\n" for line in printed.splitlines())
    return re.fullmatch(pattern, re.sub(" {2,}", "  ", printed)) is not None


def compare(shown: str, printed: str, where: str) -> None:
    if not same(shown, printed):
        lines = difflib.unified_diff(shown.splitlines(), printed.splitlines(), "shown", "printed")
        pytest.fail(f"{where}:\n" + "\n".join(lines), pytrace=False)


def run_python(page: Path, block: Block, names: dict[str, Any], capsys: Capture) -> None:
    code = compile("\n" * (block.line - 1) + block.code, page, "exec")
    exec(code, names)
    if block.shown is not None:
        compare(block.shown, capsys.readouterr().out, f"{page.name}, line {block.line}")


def run_console(page: Path, block: Block, capsys: Capture) -> None:
    for command in re.split(r"^\$ ptwalk ", block.code, flags=re.MULTILINE)[1:]:
        arguments, _, shown = command.partition("\n")
        status = main(shlex.split(arguments, comments=True))
        assert status == 0, f"{page.name}, line {block.line}: ptwalk {arguments} returned {status}"
        compare(shown, capsys.readouterr().out, f"{page.name}: ptwalk {arguments}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples(page: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPO)
    names: dict[str, Any] = {"__name__": page.stem}
    for block in blocks(page.read_text(encoding="utf-8")):
        assert block.language in LANGUAGES, f"{page.name}, line {block.line}: {block.language}"
        if block.language == "python":
            run_python(page, block, names, capsys)
        elif block.language == "console":
            run_console(page, block, capsys)
        capsys.readouterr()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_examples_are_found() -> None:
    found = [block for page in PAGES for block in blocks(page.read_text(encoding="utf-8"))]
    assert sum(block.language == "python" for block in found) >= 8
    assert sum(block.shown is not None for block in found) >= 6


@pytest.mark.parametrize(
    ("shown", "printed", "equal"),
    [
        ("0x…67  P RW\n", "0x1267   P RW\n", True),
        ("0x…67  P RW\n", "0x1265  P RW\n", False),
        ("a\n…\nb\n", "a\n1\n2\nb\n", True),
        ("a\n…\nb\n", "a\nb\n", True),
        ("a\n", "a\nb\n", False),
        ("", "a\n", False),
    ],
)
def test_a_difference_is_noticed(shown: str, printed: str, equal: bool) -> None:
    assert same(shown, printed) == equal
