"""The fuzzing backend: programs of 20 operations, each from the same state to a digest.

The mix of operations is that of `ptwalk.fuzz.standard_mix`: accesses, wr-protect and resolve,
mprotect, zaps, reclaim, and changes of VMAs. Going back to the state is part of a program's time.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from .. import _core
from ..fuzz import SETUPS, Executor
from .harness import Contender, Figure, interleave, processors
from .progress import Progress
from .results import PROFILE, Line
from .settings import Settings

NAME = "fuzz"
TITLE = "Fuzzing backend: programs of 20 operations, from state to digest"
CPP, BATCH, BATCH_2 = "loop in C++", "run_batch", "run_batch, 2 threads"
COVERAGE, ONE = "run_batch with coverage", "run, one by one"
NOTHING = "programs of nothing"
PROFILES = ("uffd-wp-v2", PROFILE)
PAGES = {"shmem-16": "16 pages", "anon-16": "16 pages", "mixed": "all kinds of memory"}
OPERATIONS = 20


def run(settings: Settings, progress: Progress) -> Iterator[Line]:
    """Measure executors by profile and setup."""
    for profile in PROFILES:
        for setup, pages in PAGES.items():
            progress(NAME, f"{profile}, {setup}")
            tags = {"profile": profile, "setup": setup, "pages": pages}
            figures, missing = _programs(profile, setup, settings)
            yield Line(NAME, tags, "ns/program", CPP, figures, missing)


def _programs(
    profile: str, setup: str, settings: Settings
) -> tuple[dict[str, Figure], dict[str, str]]:
    """Time everything that runs programs; two threads have an executor and programs each."""
    nr = settings.programs
    first, second = Executor(profile, setup), Executor(profile, setup)
    ours, others = (_core.fuzz_standard_mix(nr, seed) for seed in (1, 2))
    few = [bytes(row) for row in ours[: nr // 10]]
    cpp = _core.FuzzExecutor(profile, {}, SETUPS[setup], "", True, False, 4, None)
    nothing = [b""] * nr
    missing = {}
    contenders = [
        Contender(CPP, [partial(cpp.run_all, ours)], nr),
        Contender(BATCH, [partial(first.run_batch, ours, coverage=False)], nr),
        Contender(COVERAGE, [partial(first.run_batch, ours)], nr),
        Contender(ONE, [lambda: [first.run(program) for program in few]], len(few)),
        Contender(NOTHING, [partial(first.run_batch, nothing, coverage=False)], nr),
    ]
    with ThreadPoolExecutor(1) as pool:

        def both() -> None:
            other = pool.submit(second.run_batch, others, coverage=False)
            first.run_batch(ours, coverage=False)
            other.result()

        if processors() > 1:
            contenders.append(Contender(BATCH_2, [both], 2 * nr))
        else:
            missing[BATCH_2] = "one processor"
        return interleave(contenders, rounds=settings.rounds, seconds=settings.seconds), missing
