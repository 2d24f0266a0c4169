"""What a worker works with: the executor of a campaign, its judges, and who minimises."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from .. import _core
from ..errors import InvalidArgument
from .against import Against
from .campaign import Spec
from .corpus import STEPS
from .executor import Executor
from .judges import Invariants, Kernels, run_all
from .minimise import minimise
from .model_judge import Model
from .mutate import Programs
from .program import TABLE
from .running import RunningKernel
from .task import RECIPE, Batch, Before, Judge, TaskResult, run_task

# How often operations are drawn, where it is not once: what most needs to come together.
_WEIGHTS = {
    "access": 8.0,
    "access_many": 3.0,
    "mprotect": 5.0,
    "writeprotect": 8.0,
    "madvise": 3.0,
    "mmap": 2.0,
    "mremap": 2.0,
    "register": 2.0,
    "copy": 2.0,
    "fork": 2.0,
    "reclaim": 2.0,
    "migrate_start": 2.0,
    "migrate_finish": 2.0,
}


def judges_of(spec: Spec, setup: str) -> dict[str, Callable[[], Judge]]:
    """Return what makes each judge that fits a campaign."""
    raw = not spec.against  # real kernels have no raw stores to compare

    def plain(profile: str) -> Executor:
        return Executor(profile, setup, raw=False)

    def on_kernel(kernel: str) -> Executor:
        return Executor(spec.profile, setup, kernel=kernel, raw=raw)

    def closely() -> Executor:  # raw stores would void the laws for the rest of a program
        return Executor(spec.profile, setup, raw=False, judge="each")

    made: dict[str, Callable[[], Judge]] = {
        "invariants": lambda: Invariants(closely(), setup),
        "kernels": lambda: Kernels(on_kernel, setup),
        "model": lambda: Model(spec.profile, setup),
        "running-kernel": lambda: RunningKernel(spec.profile, setup),
    }
    if spec.against:
        made["against"] = lambda: Against(plain, spec.profile, spec.against, setup)
    return made


class Workbench:
    """The `Bench` of a campaign.

    Parameters
    ----------
    spec : Spec
        The campaign.
    setup : str
        One of its setups.

    Raises
    ------
    InvalidArgument
        For an unknown profile, setup or judge.
    """

    def __init__(self, spec: Spec, setup: str) -> None:
        if spec.mutant:
            _core.choose_mutant(spec.mutant)
        made = judges_of(spec, setup)
        if unknown := [name for name in spec.judges if name not in made]:
            raise InvalidArgument(
                f"judge {unknown[0]!r} is not one; use {', '.join(made)}"
                + ("" if spec.against else ", and against with --against")
            )
        self._executor = Executor(spec.profile, setup, raw=not spec.against)
        self.judges: Sequence[Judge] = [made[name]() for name in spec.judges]
        self.weights = np.array(
            [0.0 if row.raw and spec.against else _WEIGHTS.get(row.name, 1.0) for row in TABLE]
        )
        self._against = [judge for judge in self.judges if isinstance(judge, Against)]
        for judge in self._against:  # what differs by itself hides what differs together
            self.weights *= 0.02 + (1 - judge.noise()) ** 2
        self.branches = self._executor.branches * (1 + len(self._against))
        self.features = len(self.branches) * len(STEPS)
        kind = [*self.branches, repr(TABLE), repr(RECIPE), repr(_WEIGHTS)]
        self.fingerprint = hashlib.sha256("\n".join(kind).encode()).hexdigest()[:16]

    def run(self, programs: Programs) -> Batch:
        """Run programs; the coverage of the other profile stands beside that of the profile."""
        batch = run_all(self._executor, programs)
        others = [judge.run(programs).coverage for judge in self._against]
        coverage = np.concatenate([batch.coverage, *others], axis=1)
        return Batch(batch.digest, batch.visible, coverage, batch.violations)

    def minimise(self, same: Callable[[bytes], bool], program: bytes) -> bytes:
        """Return the smallest program that is found for which `same` holds."""
        return minimise(same, program)


@cache
def workbench(spec: Spec, setup: str) -> Workbench:
    """Return the bench of a campaign for one of its setups; a worker makes it once."""
    return Workbench(spec, setup)


def work(spec: Spec, task: int, before: Before) -> TaskResult:
    """Do a task: what workers of a campaign run."""
    return run_task(workbench(spec, spec.setup(task)), spec.seed, task, before)
