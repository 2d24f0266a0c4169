"""Reports from results that were saved: the tables, the checks, and files that hold no results."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from bench_results import whole_run
from ptwalk import InvalidArgument
from ptwalk.bench import load, markdown, text
from ptwalk.bench.goals import GOALS
from ptwalk.bench.report import value
from ptwalk.bench.suites import SUITES


def test_results_survive_a_file(tmp_path: Path) -> None:
    results = whole_run()
    results.save(tmp_path / "results.json")
    assert load(tmp_path / "results.json") == results


@pytest.mark.parametrize(
    ("content", "reason"),
    [("", "holds no results"), ("[]", "holds no results"), ('{"format": 0}', "format 0")],
)
def test_a_file_without_results_is_refused(tmp_path: Path, content: str, reason: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InvalidArgument, match=reason):
        load(path)
    with pytest.raises(InvalidArgument, match="holds no results"):
        load(tmp_path / "absent.json")


def test_a_row_has_the_base_and_ratios_to_it() -> None:
    table = markdown(whole_run())
    assert "| DRAM | 0.5 | 1.1 (1.1) |\n" in table
    assert "| case | memcpy, ns/entry | ptes(out=) |\n| --- | --- | --- |\n" in table


def test_every_suite_and_every_goal_is_reported() -> None:
    report = text(whole_run())
    for suite in SUITES.values():
        assert suite.TITLE in report
    for goal in GOALS:
        assert goal.what in report
    assert "running kernel, uffd-wp: up to 1 GiB only" in report
    assert "GCC 12.2.0; load 0.10 before, 0.20 after" in report


def test_tables_are_checked_against_the_kernels_rule() -> None:
    results = whole_run()
    assert "1 TiB: tables_modelled 525,315, as VmPTE counts them" in text(results)
    assert "VmPTE of the running kernel grew by 513 tables" in text(results)
    (line,) = results.of("simulated", mapping="never touched", length="1 TiB")
    wrong = dataclasses.replace(line, facts={**line.facts, "tables_modelled": 1.0})
    lines = [wrong if other is line else other for other in results.lines]
    assert "NOT as (525,315) VmPTE" in text(dataclasses.replace(results, lines=lines))


def test_the_caveat_is_printed_with_the_running_kernels_figures() -> None:
    results = whole_run()
    caveat = "also locks, looks up folios and flushes TLBs"
    assert caveat not in text(results)
    (line,) = results.of("simulated", length="1 GiB")
    figures = {**line.figures, "running kernel, uffd-wp": line.figures["untouched"]}
    lines = [*results.lines, dataclasses.replace(line, figures=figures)]
    assert caveat in text(dataclasses.replace(results, lines=lines))


@pytest.mark.parametrize(
    ("number", "unit", "shown"),
    [
        (0.12345, "", "0.123"),
        (1234.5, "ms", "1,234 ms"),
        (64.0, "bytes", "64 B"),
        (4.3 * 1024, "bytes", "4.3 KiB"),
        (8 << 20, "bytes", "8 MiB"),
    ],
)
def test_numbers_are_short(number: float, unit: str, shown: str) -> None:
    assert value(number, unit) == shown
