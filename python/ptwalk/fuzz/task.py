"""One task of a campaign: a seed goes in; new programs, findings and counts come out.

What a task does follows from its number, the seed of the campaign and what earlier tasks have
found; not from time, nor from who runs it.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .corpus import Entry, Mask, features_of, first_reached
from .findings import Finding
from .mutate import Programs, Weights, mutate, swarm
from .trim import trimmed

ROUNDS, PROGRAMS = 4, 512  # a task is that many batches of that many programs
LONGEST = 24  # operations of most programs; short ones run fast and say more
# A campaign goes on only where tasks do the same: the first number is for changes of what they do.
RECIPE = (1, ROUNDS, PROGRAMS, LONGEST)

Counts = dict[str, int]


class Judge(Protocol):
    """Who says whether a program shows something wrong."""

    name: str
    limit: int  # how many programs of a batch it looks at, one by one

    def suspects(
        self, programs: Programs, batch: Batch, fresh: Mask, known: frozenset[str]
    ) -> npt.NDArray[np.int64]:
        """Rank the programs of a batch: 0 is not worth a look, a higher one is more so.

        `fresh` says which ones reached something new; `known` are keys of earlier findings.
        """

    def __call__(self, program: bytes) -> Finding | None:
        """Judge one program."""

    def look(self, program: bytes, known: frozenset[str]) -> Finding | None:
        """Judge one program, passing by what is known where there is more to see."""

    def same(self, finding: Finding) -> Callable[[bytes], bool]:
        """Return a fast test of whether a program shows the same, for minimising."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What a batch of programs did: digests, visible, coverage and violations, a row each."""

    digest: Any
    visible: Any
    coverage: Any
    violations: Any


class Bench(Protocol):
    """What a task works with: an executor, the judges, and who minimises."""

    weights: Weights
    features: int
    judges: Sequence[Judge]

    def run(self, programs: Programs) -> Batch:
        """Run programs; the coverage may be that of more than one executor."""

    def minimise(self, same: Callable[[bytes], bool], program: bytes) -> bytes:
        """Return the smallest program that is found for which `same` holds."""


@dataclass(frozen=True, slots=True)
class Before:
    """What a task may know of earlier ones: programs, packed features, keys of findings.

    `seeds` are programs from elsewhere, which it runs first, as they are.
    """

    programs: tuple[bytes, ...]
    seen: bytes
    known: frozenset[str]
    seeds: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What a task found.

    Attributes
    ----------
    task : int
        Its number.
    entries : tuple of Entry
        Programs that reached something which no earlier task had, in the order of finding.
    findings : tuple of Finding
        One for each key that was not known.
    counts : dict of str to int
        "programs", "operations" and, by judge, "judge NAME" (looked at) and "seen NAME" (against).
    """

    task: int
    entries: tuple[Entry, ...] = ()
    findings: tuple[Finding, ...] = ()
    counts: Counts = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        return {
            "task": self.task,
            "entries": [
                [base64.b64encode(entry.program).decode(), list(entry.features)]
                for entry in self.entries
            ],
            "findings": [finding.to_json() for finding in self.findings],
            "counts": self.counts,
        }

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> TaskResult:
        """Return the result that `to_json` described."""
        return cls(
            record["task"],
            tuple(Entry(base64.b64decode(p), tuple(f)) for p, f in record["entries"]),
            tuple(map(Finding.from_json, record["findings"])),
            record["counts"],
        )


def run_task(bench: Bench, seed: int, task: int, before: Before) -> TaskResult:
    """Do a task.

    Parameters
    ----------
    bench : Bench
        Executor and judges.
    seed, task : int
        Where all choices come from.
    before : Before
        What earlier tasks found.
    """
    rng = np.random.default_rng([seed, task])
    packed = np.frombuffer(before.seen, np.uint8)
    seen = np.unpackbits(packed, count=bench.features).astype(np.bool_)
    parents = list(before.programs) or [b""]
    work = _Work(bench, set(before.known))
    given = [before.seeds[i : i + PROGRAMS] for i in range(0, len(before.seeds), PROGRAMS)]
    for part in [*given, *[()] * ROUNDS]:
        if part:
            programs = Programs.of(part)
        else:
            likely = swarm(rng, bench.weights)
            programs = mutate(rng, Programs.of(parents), PROGRAMS, likely, LONGEST)
        batch = bench.run(programs)
        features = features_of(batch.coverage)
        first = first_reached(features, seen)
        seen |= features.any(axis=0)
        work.judge(programs, batch, np.isin(np.arange(len(programs)), list(first)))
        new = trimmed(work.reached, [Entry(programs[row], found) for row, found in first.items()])
        parents += [entry.program for entry in new]
        work.entries += new
    return TaskResult(task, tuple(work.entries), tuple(work.findings), work.counts)


class _Work:
    """What a task has gathered so far."""

    def __init__(self, bench: Bench, known: set[str]) -> None:
        self.bench, self.known = bench, known
        self.entries: list[Entry] = []
        self.findings: list[Finding] = []
        self.counts: Counts = {}

    def reached(self, programs: Programs) -> Mask:
        return features_of(self.bench.run(programs).coverage)

    def judge(self, programs: Programs, batch: Batch, fresh: Mask) -> None:
        self.count("programs", len(programs))
        self.count("operations", int(programs.lengths.sum()))
        for judge in self.bench.judges:
            if skipped := getattr(judge, "skipped", None):  # on this machine, not where it began
                self.count(f"judge {judge.name} skipped: {skipped}")
                continue
            ranks = judge.suspects(programs, batch, fresh, frozenset(self.known))
            # Those that reached something new first: they differ most from each other.
            order = np.argsort(-2 * ranks - fresh, kind="stable")
            for row in order[: np.count_nonzero(ranks)][: judge.limit].tolist():
                self.look(judge, programs[row])

    def look(self, judge: Judge, program: bytes) -> None:
        self.count(f"judge {judge.name}")
        finding = judge.look(program, frozenset(self.known))
        if finding is None:
            return
        self.count(f"seen {judge.name}")
        if finding.key in self.known:
            return
        self.known.add(finding.key)
        self.findings.append(self.smallest(judge, finding))

    def smallest(self, judge: Judge, finding: Finding) -> Finding:
        """Return the finding with a program that is as small as can be found."""

        def exactly(program: bytes) -> bool:
            found = judge(program)
            return found is not None and found.key == finding.key

        for same in (judge.same(finding), exactly):  # the first is fast, and may lead elsewhere
            found = judge(self.bench.minimise(same, finding.program))
            if found is not None and found.key == finding.key:
                return found
        return finding

    def count(self, name: str, number: int = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + number
