"""Goals judged by made-up results: the worst line counts, and a miss says by how much and why."""

from __future__ import annotations

import dataclasses

import pytest
from bench_results import RUN, dense, line, whole_run
from ptwalk.bench.goals import GOALS, Outcome, outcomes
from ptwalk.bench.results import Line, Results

DRAM_UNIFORM = "DRAM, uniform, against read-modify-write"


def outcome(what: str, *lines: Line) -> Outcome:
    (found,) = [o for o in outcomes(Results(dict(RUN), [*lines])) if o.goal.what == what]
    return found


@pytest.mark.parametrize(
    ("ptwalk", "verdict"),
    [
        (1.08, "stretch"),
        (1.09, "met"),
        (1.20, "met"),
        (1.26, "missed by 5 %"),
        (3.6, "missed by 3.0 times"),
    ],
)
def test_the_verdict_of_a_goal_where_less_is_better(ptwalk: float, verdict: str) -> None:
    found = outcome(DRAM_UNIFORM, dense("DRAM", "all present", {"ptwalk": ptwalk}))
    assert found.verdict == verdict
    assert found.worst is not None
    assert found.worst.value == pytest.approx(ptwalk)


@pytest.mark.parametrize(
    ("scalar", "verdict"), [(10, "stretch"), (6, "met"), (5, "missed by 20 %")]
)
def test_the_verdict_of_a_goal_where_more_is_better(scalar: float, verdict: str) -> None:
    what = "DRAM, mixed, the branchy loop against ptwalk"
    found = outcome(what, dense("DRAM", "25 each", {"ptwalk": 1.0, "kernel scalar": scalar}))
    assert found.verdict == verdict


def test_the_worst_line_counts_and_only_those_that_speak_for_the_goal() -> None:
    found = outcome(
        DRAM_UNIFORM,
        dense("DRAM", "all present", {"ptwalk": 1.1}),
        dense("DRAM", "all marker", {"ptwalk": 1.15}, request="anonymous"),
        dense("DRAM", "70/15/10/5", {"ptwalk": 5.0}),
        dense("L2", "all present", {"ptwalk": 5.0}),
    )
    assert found.worst is not None
    assert found.worst.line.case == "DRAM, anonymous, all marker"
    assert found.verdict == "met"


def test_without_a_line_a_goal_is_not_measured() -> None:
    assert {o.verdict for o in outcomes(Results(dict(RUN), []))} == {"not measured"}
    no_numba = dense("DRAM", "all present", {"ptwalk": 1.0})
    assert outcome("DRAM, numba branch-free against ptwalk", no_numba).verdict == "not measured"


def test_a_miss_is_divided_into_the_kernel_and_the_call() -> None:
    figures = {"ptwalk": 1.4, "ptwalk, first look": 1.5, "kernel avx2": 1.25}
    why = outcome(DRAM_UNIFORM, dense("DRAM", "all present", figures)).why
    assert "kernel avx2 alone takes 1.25 of the limit and the public call 1.5" in why
    assert "add 250.0 µs" in why  # of a million entries, a quarter of a ns each
    assert "seen before takes 1400.0 µs" in why


def test_rates_are_made_of_nanoseconds() -> None:
    found = {o.goal.what: o for o in outcomes(whole_run())}
    programs = found["programs of 20 operations on 16 pages, one core"]
    assert programs.worst is not None
    assert programs.worst.value == pytest.approx(500_000)
    assert programs.verdict == "met"
    assert found["libFuzzer, target programs"].verdict == "met"


def test_a_slow_program_is_divided_into_operations() -> None:
    figures = {"loop in C++": 8100.0, "programs of nothing": 100.0}
    slow = line("fuzz", {"pages": "16 pages"}, "loop in C++", figures)
    why = outcome("programs of 20 operations on 16 pages, one core", slow).why
    assert why == "a program takes 8100 ns, one without operations 100; 400 each"


def test_a_call_is_judged_by_its_slowest_form() -> None:
    found = {o.goal.what: o for o in outcomes(whole_run())}
    call = found["16-page protect against an empty pybind11 call"]
    assert call.worst is not None
    assert call.worst.value == pytest.approx(10)
    assert call.verdict == "missed by 2.0 times"


def test_ratios_are_of_the_fastest_trials() -> None:
    one = line("export", {"size": "DRAM"}, "memcpy", {"memcpy": 1.0, "ptes(out=)": 1.0})
    slow = dataclasses.replace(one.figures["ptes(out=)"], median=9.0)
    noisy = dataclasses.replace(one, figures={**one.figures, "ptes(out=)": slow})
    assert outcome("export against a copy of the same bytes", noisy).verdict == "stretch"


def test_every_goal_can_be_reached() -> None:
    for goal in GOALS:
        better = goal.stretch < goal.accept if goal.at_most else goal.stretch > goal.accept
        assert better, goal.what
    assert len({goal.what for goal in GOALS}) == len(GOALS)
