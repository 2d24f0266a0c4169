"""Campaigns: numbered tasks on any executor, results kept once and for good, resumed after a kill.

A task knows what all tasks up to a fixed distance before it have found, so that the next ones can
start while the last ones run; what a campaign finds follows from its seed and the number of its
tasks, not from workers, time or interruptions.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ..errors import PtwalkError
from .corpus import Corpus, Entry, reached_branches
from .findings import Finding
from .journal import Journal, open_journal, write_atomically
from .task import Before, Counts, TaskResult

PARENTS = 256  # most programs of the corpus that a task starts from


@dataclass(frozen=True, slots=True)
class Spec:
    """What a campaign is: what it runs on, what it looks for, and where its choices come from.

    Attributes
    ----------
    profile : str
        The kernel that programs run on.
    setups : tuple of str
        What they start from; tasks take turns.
    against : str
        The profile to compare with, or nothing.
    mutant : str
        The planted bug to run with, or nothing.
    judges : tuple of str
        Names of the judges.
    seed : int
        Where all choices come from.
    generation : int
        Tasks that know the same; twice as many can run at once.
    """

    profile: str
    setups: tuple[str, ...]
    against: str = ""
    mutant: str = ""
    judges: tuple[str, ...] = ("invariants",)
    seed: int = 1
    generation: int = 8

    def setup(self, task: int) -> str:
        """Return what the programs of a task start from."""
        return self.setups[task % len(self.setups)]

    def basis(self, task: int) -> int:
        """Return how many tasks, from the first, `task` knows; few of them in the beginning."""
        size = self.generation
        if task >= 2 * size:
            return (task // size - 1) * size
        return (1 << task.bit_length()) // 4 if task > 1 else 0


@dataclass(frozen=True, slots=True)
class Found:
    """A finding, the task that had it first, and the seconds after which it came."""

    finding: Finding
    task: int
    seconds: float


@dataclass(frozen=True, slots=True)
class State:
    """How far a campaign is."""

    tasks: int
    seconds: float
    counts: Counts
    corpus: int
    reached: int
    findings: int


def _hash(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _keep(corpus: Path, program: bytes) -> None:
    path = corpus / _hash(program).hex()[:16]
    if not path.exists():
        write_atomically(path, program)


RunTask = Callable[[Spec, int, Before], TaskResult]
Files = Callable[[Finding], dict[str, bytes]]


class Campaign:
    """A campaign and, if it has a directory, its journal, corpus and findings there.

    Parameters
    ----------
    spec : Spec
        What it is.
    run_task : callable
        What workers run; must be importable by name where they are other processes.
    features : int
        Features of the coverage map that tasks report.
    directory : Path, optional
        Where results are kept. A campaign that is there is resumed.
    files : callable, optional
        Makes the files of a finding, by name.
    seeds : sequence of bytes
        Programs from elsewhere, which the first tasks run, each from every setup.
    format_ : str
        What programs and features mean; a campaign of another one is not resumed.

    Raises
    ------
    InvalidArgument
        The directory holds another campaign, or is in use.

    Notes
    -----
    The journal is the truth: `corpus` and `findings` in the directory are made from it.
    """

    def __init__(
        self,
        spec: Spec,
        run_task: RunTask,
        features: int,
        *,
        directory: Path | None = None,
        files: Files | None = None,
        seeds: Sequence[bytes] = (),
        format_: str = "",
    ) -> None:
        self.spec, self._run_task, self._files = spec, run_task, files
        self._seeds = tuple(seeds)
        self.corpus = Corpus(features)
        self.findings: dict[str, Found] = {}
        self.counts: Counts = {}
        self._done: dict[int, tuple[TaskResult, float]] = {}  # not merged yet
        self._merged = 0  # tasks before this one are merged
        self._known: dict[int, tuple[int, bytes, frozenset[str]]] = {}  # by tasks merged
        self._unwritten: deque[Entry | Finding] = deque()  # taken in, no file yet
        self._seconds = 0.0
        self._directory = directory
        self._journal: Journal | None = None
        if directory:
            identity = {**asdict(spec), "features": features, "format": format_}
            identity["seeds"] = _hash(b"".join(map(_hash, seeds))).hex()[:16] if seeds else ""
            self._journal = open_journal(directory, identity)
        self._remember()
        if self._journal:
            self._resume(self._journal)

    def _resume(self, journal: Journal) -> None:
        for record in journal.records:
            self._accept(TaskResult.from_json(record), record["seconds"])
            self._seconds = max(self._seconds, record["seconds"])
        self._merge()

    def run(
        self,
        pool: Executor,
        *,
        workers: int,
        tasks: int | None = None,
        seconds: float | None = None,
        first: bool = False,
        progress: Callable[[State], None] | None = None,
    ) -> None:
        """Do tasks until there are `tasks`, or for `seconds`.

        Parameters
        ----------
        pool : Executor
            Who runs them; not shut down here.
        workers : int
            How many run at once.
        tasks : int, optional
            Tasks of the campaign in all, those of earlier runs included.
        seconds : float, optional
            How long this run may start tasks.
        first : bool
            Whether the first finding ends it.
        progress : callable, optional
            Told the state whenever tasks are done, and once a second.
        """
        start, before = time.monotonic(), self._seconds
        running: dict[Future[TaskResult], int] = {}
        numbers = self._numbers(tasks)
        task = next(numbers, None)
        try:
            while True:
                late = seconds is not None and time.monotonic() - start >= seconds
                late |= first and bool(self.findings)
                while task is not None and not late and len(running) < 2 * workers:
                    if self.spec.basis(task) > self._merged:
                        break  # what it must know is not there yet
                    running[self._start(pool, task)] = task
                    task = next(numbers, None)
                if not running:
                    break
                if late:
                    self._cancel(running)
                done, _ = wait(running, timeout=1, return_when=FIRST_COMPLETED)
                self._seconds = before + time.monotonic() - start
                self._commit([future.result() for future in done if not future.exception()])
                self._raise(done, running)
                for future in done:
                    del running[future]
                if progress:
                    progress(self.state())
        finally:
            self._cancel(running)

    def _start(self, pool: Executor, task: int) -> Future[TaskResult]:
        """Submit a task; one that a broken pool refuses is one that failed."""
        try:
            return pool.submit(self._run_task, self.spec, task, self._before(task))
        except BrokenExecutor as error:
            refused: Future[TaskResult] = Future()
            refused.set_exception(error)
            return refused

    @staticmethod
    def _raise(done: set[Future[TaskResult]], running: dict[Future[TaskResult], int]) -> None:
        """Raise what a task raised; PtwalkError where a worker did not live to tell."""
        try:
            for future in done:
                future.result()
        except BrokenExecutor:
            lost = ", ".join(map(str, sorted(running.values())))
            raise PtwalkError(
                f"a worker died in one of the tasks {lost}; the same command does them again, with "
                "--workers 1 one by one"
            ) from None

    @staticmethod
    def _cancel(running: dict[Future[TaskResult], int]) -> None:
        for future in [future for future in running if future.cancel()]:
            del running[future]

    def _numbers(self, tasks: int | None) -> Iterator[int]:
        """Tasks that are not done, in order."""
        task = self._merged
        while tasks is None or task < tasks:
            if task not in self._done:
                yield task
            task += 1

    def _commit(self, results: list[TaskResult]) -> None:
        """Write results down, then use them: what other tasks know is on the disk."""
        for result in results:  # first, so that `finish` tells them if this is interrupted
            self._accept(result, self._seconds)
        if self._journal and results:
            seconds = round(self._seconds, 1)
            self._journal.append({**result.to_json(), "seconds": seconds} for result in results)
        self._merge()

    def _accept(self, result: TaskResult, seconds: float) -> None:
        if result.task >= self._merged:
            self._done.setdefault(result.task, (result, seconds))

    def _merge(self) -> None:
        """Take in results in the order of tasks, as far as there is none missing."""
        while self._merged in self._done:
            result, seconds = self._done.pop(self._merged)
            self._take(result, seconds)
            self._unwritten += self.corpus.add(result.entries)
            self._merged += 1
            self._remember()
        self._write_files()

    def _take(self, result: TaskResult, seconds: float) -> None:
        for name, number in result.counts.items():
            self.counts[name] = self.counts.get(name, 0) + number
        for finding in result.findings:
            if finding.key not in self.findings:
                self.findings[finding.key] = Found(finding, result.task, seconds)
                self._unwritten.append(finding)

    def _write_files(self) -> None:
        """Write what was taken in since; what an interrupt leaves, `finish` writes."""
        while self._unwritten:
            each = self._unwritten[0]
            if self._directory and isinstance(each, Entry):
                _keep(self._directory / "corpus", each.program)
            elif self._directory and isinstance(each, Finding):
                self._write(self._directory / "findings" / each.slug, each)
            self._unwritten.popleft()

    def finish(self) -> None:
        """Take in what was done after a task that was not, and close the journal.

        Such results are in the journal; resuming begins with the tasks that are missing.
        """
        try:
            for task in sorted(self._done):  # not into the corpus: that has an order
                self._take(*self._done[task])
            self._write_files()
        finally:
            if self._journal:
                self._journal.close()

    def state(self) -> State:
        """Return how far the campaign is."""
        return State(
            tasks=self._merged + len(self._done),
            seconds=self._seconds,
            counts=dict(self.counts),
            corpus=len(self.corpus.programs),
            reached=reached_branches(self.corpus.seen),
            findings=len(self.findings),
        )

    def _remember(self) -> None:
        """Keep what later tasks may know, if any of them knows just what is merged now."""
        size, merged = self.spec.generation, self._merged
        if merged % size == 0 or (merged < size and merged & (merged - 1) == 0):
            seen = np.packbits(self.corpus.seen).tobytes()
            self._known[merged] = len(self.corpus.entries), seen, frozenset(self.findings)
            for old in [basis for basis in self._known if basis < self.spec.basis(merged)]:
                del self._known[old]

    def _before(self, task: int) -> Before:
        """Choose what a task starts from: half of it the newest, half of it any."""
        entries, seen, known = self._known[self.spec.basis(task)]
        rng = np.random.default_rng([self.spec.seed, task, 1])
        newest = range(max(entries - PARENTS // 2, 0), entries)
        others = rng.integers(0, entries, PARENTS // 2).tolist() if entries else []
        programs = (self.corpus.entries[i].program for i in dict.fromkeys([*newest, *others]))
        return Before(tuple(programs), seen, known, self._seeds_of(task))

    def _seeds_of(self, task: int) -> tuple[bytes, ...]:
        """Return which seeds are a task's: all of them once for each setup, in the first tasks."""
        setups = len(self.spec.setups)
        first = max(self.spec.generation, setups)
        if task >= first:
            return ()
        return self._seeds[task // setups :: len(range(task % setups, first, setups))]

    def _write(self, directory: Path, finding: Finding) -> None:
        """Write the files of a finding; finding.json, the last one, says that all are there."""
        path, text = directory / "finding.json", finding.dumps().encode()
        if path.exists() and path.read_bytes() == text:
            return
        for name, data in (self._files(finding) if self._files else {}).items():
            write_atomically(directory / name, data)
        write_atomically(path, text)
