"""Interleaved timing with a clock that the test moves: order, figures, who drops out."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest
from ptwalk.bench.harness import Contender, Figure, aligned, interleave


class Clock:
    """Nanoseconds that pass when `work` says so, and a little whenever somebody looks."""

    def __init__(self) -> None:
        self.now = 0
        self.log: list[str] = []

    def __call__(self) -> int:
        if not self.log:
            self.now += 50_000_000  # warming up
        return self.now

    def work(self, name: str, nanoseconds: list[int]) -> Callable[[], None]:
        """Return a step that takes these times, one after the other, again and again."""
        times = iter(nanoseconds * 1000)

        def step() -> None:
            self.log.append(name)
            self.now += next(times)

        return step


def test_contenders_take_turns_and_each_round_begins_with_another() -> None:
    clock = Clock()
    contenders = [Contender(name, [clock.work(name, [1])]) for name in "abc"]
    interleave(contenders, rounds=4, seconds=1, clock=clock)
    assert "".join(clock.log) == "abc" + "bca" + "cab" + "abc"


def test_a_figure_is_the_sum_of_steps_by_unit_of_work() -> None:
    clock = Clock()
    steps = [clock.work("protect", [30, 50, 40]), clock.work("resolve", [10, 10, 10])]
    prepare = clock.work("prepare", [10_000])
    one = Contender("one", steps, work=10, prepare=prepare)
    figures = interleave([one], rounds=3, seconds=1, clock=clock)
    assert figures == {"one": Figure(4.0, 5.0, 6.0, 3)}
    assert clock.log == ["prepare", "protect", "resolve"] * 3


def test_a_trial_that_settles_first_is_made_twice_and_timed_once() -> None:
    clock = Clock()
    step = Contender("a", [clock.work("step", [90, 10])], prepare=clock.work("prepare", [1]))
    figures = interleave([step], rounds=2, seconds=1, settle=True, clock=clock)
    assert figures == {"a": Figure(10, 10, 10, 2)}
    assert clock.log == ["prepare", "step"] * 4


def test_who_has_used_up_the_time_drops_out_after_three_trials() -> None:
    clock = Clock()
    slow = Contender("slow", [clock.work("slow", [1_000_000_000])])
    fast = Contender("fast", [clock.work("fast", [10])])
    dear = Contender("dear", [clock.work("dear", [10])], prepare=clock.work("-", [400_000_000]))
    figures = interleave([slow, fast, dear], rounds=9, seconds=1.5, clock=clock)
    assert {name: figure.trials for name, figure in figures.items()} == {
        "slow": 3,
        "fast": 9,
        "dear": 4,
    }


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_is_not_collected_in_a_trial(enabled: bool) -> None:
    seen = []
    before = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        clock = Clock()
        clock.log.append("warm")
        clock.now = 0

        def look() -> None:
            seen.append(gc.isenabled())

        tick = Contender("tick", [look, clock.work("tick", [5])])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("ptwalk.bench.harness.warm", lambda _clock: None)
            interleave([tick], rounds=2, seconds=1, clock=clock)
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if before else gc.disable)()
    assert seen == [False, False]


def test_aligned_words_start_at_a_page() -> None:
    for nr in (1, 512, 100_000):
        words = aligned(nr)
        assert len(words) == nr
        assert words.ctypes.data % 4096 == 0
        assert not words.any()


def test_figures_in_another_unit() -> None:
    assert Figure.of([3e6, 1e6, 2e6]).scaled(1e-6) == Figure(1.0, 2.0, 3.0, 3)
