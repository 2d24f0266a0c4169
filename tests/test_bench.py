"""``ptwalk bench`` from end to end, on sizes so small that its figures mean nothing."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
from ptwalk import cli
from ptwalk.bench import harness, load, run, settings, start
from ptwalk.bench.goals import GOALS
from ptwalk.bench.results import in_child
from ptwalk.bench.suites import SUITES

TINY = dataclasses.replace(
    settings.QUICK,
    name="tiny",
    small_tables=2,
    large_tables=4,
    small_rounds=2,
    rounds=2,
    seconds=0.01,
    simulated=(settings.GIB, 64 * settings.TIB),
    dense=settings.GIB,
    image_pages=1024,
    addresses=2000,
    calls=20,
    starts=1,
    children=1,
    memory=(settings.GIB, 64 * settings.TIB),
    programs=50,
    executions=200,
)

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "QUICK", TINY)
    monkeypatch.setattr(harness, "warm", lambda _clock: None)
    monkeypatch.setattr(start, "MODULES", {name: name for name in ("numpy", "ptwalk", "nothing")})


def test_a_quick_run_measures_every_suite_and_judges_every_goal(
    tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / "results.json"
    page = tmp_path / "page.md"
    arguments = ["bench", "--quick", "--json", str(path), "--document", str(page)]
    assert cli.main(arguments) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("profile 6.18; uffd-wp-v2 where a line says so\n")
    for goal in GOALS:
        assert goal.what in printed.out
    for name in SUITES:
        assert f"{name}: " in printed.err  # progress, in plain lines
    results = load(path)
    assert {line.suite for line in results.lines} == set(SUITES)
    for line in results.lines:
        assert line.figures or line.missing, line
        for figure in line.figures.values():
            assert 0 < figure.least <= figure.median <= figure.most
    wrong = [why for line in results.lines for why in line.missing.values() if "not timed" in why]
    assert wrong == []
    for line in results.of("simulated"):
        assert line.facts["tables_modelled"] == line.facts["kernel_tables"]
    assert page.read_text(encoding="utf-8").startswith("# Performance\n")


def test_chosen_suites_alone(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "results.json"
    assert cli.main(["bench", "export", "calls", "--quick", "--json", str(path)]) == 0
    assert [line.suite for line in load(path).lines] == ["export", "export", "calls"]
    assert "export against a copy of the same bytes" in capsys.readouterr().out


def test_old_results_are_reported_without_measuring(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = run(["calls"], TINY)
    results.save(tmp_path / "results.json")
    monkeypatch.setattr("ptwalk.bench.command.run", None)
    table = tmp_path / "table.md"
    arguments = ["bench", "--from", str(tmp_path / "results.json"), "--markdown", str(table)]
    assert cli.main(arguments) == 0
    assert "Short calls from Python" in capsys.readouterr().out
    assert table.read_text(encoding="utf-8").startswith("## Short calls from Python\n")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["speed"], "suite 'speed' is not known; use one of start, calls"),
        (["--json", "/nowhere/results.json"], "make /nowhere first"),
        (["calls", "--from", "old.json"], "old.json has its own suites; leave out calls"),
        (["--from", "/nowhere/old.json"], "holds no results"),
    ],
)
def test_what_cannot_be_done_is_said_before_measuring(
    arguments: list[str], reason: str, capsys: Capture
) -> None:
    assert cli.main(["bench", *arguments]) == 2
    assert reason in capsys.readouterr().err


def test_pictures_without_matplotlib_are_refused_before_measuring(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert cli.main(["bench", "--plots", str(tmp_path / "plots")]) == 2
    assert "pip install ptwalk[plot]" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["numba", "drgn"])
def test_a_peer_that_is_not_installed_is_named(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == package else find(name)
    )
    reasons = [why for line in run(["walks"], TINY).lines for why in line.missing.values()]
    assert f"not installed: pip install {package}" in reasons


def test_a_child_finds_the_same_ptwalk() -> None:
    import ptwalk

    program = "import json, sys, ptwalk; print(json.dumps([ptwalk.__file__, sys.argv[1]]))"
    assert in_child(program, "argument") == [ptwalk.__file__, "argument"]
