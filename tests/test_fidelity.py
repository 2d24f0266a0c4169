"""Keeps docs/fidelity.md true: what it names exists, and nothing of the core is missing from it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import ptwalk
import pytest
import test_replay
from paths import REPO

PAGE = (REPO / "docs" / "fidelity.md").read_text(encoding="utf-8")
HEADER = ["Kernel function", "Kernels", "How far", "Ours", "Shown by", "Left out"]
STATUSES = ("exact", "reduced", "not modelled")
RECORDED = ("6.1", "6.12", "6.18")
HAZARDS = {f"HZ{n}" for n in range(1, 13)}

Row = tuple[str, ...]


def tables(text: str) -> Iterator[tuple[list[str], list[Row]]]:
    """Yield the header and the rows of every table."""
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        lines = [[c.strip() for c in line.strip("|").split("|")] for line in block.splitlines()]
        header, _, *rows = lines
        assert all(len(row) == len(header) for row in rows), header
        yield header, [tuple(row) for row in rows]


def code(text: str) -> list[str]:
    """Return what stands in backticks."""
    return re.findall(r"`([^`]+)`", text)


FUNCTIONS = [row for header, rows in tables(PAGE) if header == HEADER for row in rows]
MODELLED = [row for row in FUNCTIONS if row[2] != "not modelled"]


def function_name(row: Row) -> str:
    return row[0]


def pytest_tests() -> set[str]:
    """Return "test_x.py::test_y" for every test function; none is in a class."""
    found = set()
    for path in (REPO / "tests").glob("test_*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found.add(f"{path.name}::{node.name}")
    return found


def doctest_cases() -> set[str]:
    """Return "test_x.cpp: name" for every TEST_CASE."""
    pattern = r'^TEST_CASE(?:_TEMPLATE)?\(\s*"((?:[^"\\]|\\.)*)"'
    return {
        f"{path.name}: {name}"
        for path in (REPO / "cpp" / "tests").glob("test_*.cpp")
        for name in re.findall(pattern, path.read_text(encoding="utf-8"), re.MULTILINE)
    }


def families() -> set[str]:
    """Return the families of traces that test_replay replays under every recorded kernel."""
    (mark,) = vars(test_replay.test_a_trace_replays_without_a_difference)["pytestmark"]
    traces = [name.split("-", 1) for name in mark.args[1]]
    return {f for _, f in traces if all([kernel, f] in traces for kernel in RECORDED)}


TESTS = pytest_tests() | doctest_cases() | families()


def own_files(name: str) -> list[str]:
    """Return the files of that name in the core and the package."""
    paths = [*(REPO / "cpp").rglob(name), *(REPO / "python" / "ptwalk").rglob(name)]
    return [str(path.relative_to(REPO)) for path in paths]


def test_every_table_of_functions_is_read() -> None:
    assert PAGE.count("| Kernel function |") == sum(h == HEADER for h, _ in tables(PAGE)) > 10
    assert len(FUNCTIONS) > 60


@pytest.mark.parametrize("row", FUNCTIONS, ids=function_name)
def test_status_is_one_of_three(row: Row) -> None:
    assert row[2] in STATUSES
    if row[2] != "exact":
        assert row[5], "say what is left out"


@pytest.mark.parametrize("row", FUNCTIONS, ids=function_name)
def test_kernels_are_profiles(row: Row) -> None:
    if row[1] != "all":
        names = [re.sub(r"^to | on$", "", kernel) for kernel in row[1].split(", ")]
        assert set(names) <= set(ptwalk.profiles())


@pytest.mark.parametrize("row", MODELLED, ids=function_name)
def test_what_is_modelled_has_a_file_and_a_test(row: Row) -> None:
    assert code(row[3])
    assert code(row[4])
    for name in code(row[3]):
        assert len(own_files(name)) == 1, f"{name} names {own_files(name)}"
    assert set(code(row[4])) <= TESTS


def test_every_cited_test_exists() -> None:
    cited = {text for text in code(PAGE) if re.match(r"test_\w+\.(py::|cpp: )", text)}
    assert len(cited) > 60
    assert cited <= TESTS


def test_every_file_of_the_core_appears() -> None:
    named = set(code(PAGE))
    core = [*(REPO / "cpp/src").rglob("*.cpp"), *(REPO / "cpp/include/ptwalk").glob("*.hpp")]
    assert len(core) > 40
    missing = {path.name for path in core if path.name not in named}
    assert not missing


def test_every_profile_has_a_row() -> None:
    (rows,) = (rows for header, rows in tables(PAGE) if header[0] == "Profile")
    assert [code(row[0])[0] for row in rows] == list(ptwalk.profiles())


def test_every_hazard_has_a_row_and_a_test_if_present() -> None:
    (rows,) = (rows for header, rows in tables(PAGE) if header[0] == "Hazard")
    assert {row[0] for row in rows} == HAZARDS
    for _, _, state, gone, shown in rows:
        assert state in ("present", "not modelled")
        assert (state == "present") == bool(code(shown))
        assert not gone or gone in ptwalk.profiles()


@pytest.mark.parametrize("wrong", ["test_replay.py::test_that_is_not", "test_scalar.cpp: nothing"])
def test_a_citation_of_nothing_is_noticed(wrong: str) -> None:
    assert wrong not in TESTS
