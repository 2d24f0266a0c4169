"""Replays trace files and reports where ptwalk and the recorded kernels differ.

A program is ok, differs at a step, or is not replayed from a step on because that step needs what
ptwalk does not model; those are counted apart, with the reason.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import PtwalkError
from .compare import Comparison, Difference
from .trace import Json, Program, read_programs


@dataclass(frozen=True)
class ProgramReport:
    """What replaying one program gave.

    Attributes
    ----------
    id : str
        The program.
    steps : int
        Steps replayed and compared, the one that differs included.
    difference : Difference or None
        Where it first went another way.
    not_replayed : str or None
        Why it was not replayed further than `steps`.
    """

    id: str
    steps: int
    difference: Difference | None = None
    not_replayed: str | None = None

    @property
    def status(self) -> str:
        """Return "ok", "differs" or "not replayed"."""
        if self.difference is not None:
            return "differs"
        return "ok" if self.not_replayed is None else "not replayed"


@dataclass(frozen=True)
class FileReport:
    """What replaying one trace file gave.

    Attributes
    ----------
    path : Path
    kernel, family : str
        As the file's header says.
    programs : tuple of ProgramReport
    """

    path: Path
    kernel: str
    family: str
    programs: tuple[ProgramReport, ...]

    @property
    def steps(self) -> int:
        """Steps replayed and compared."""
        return sum(program.steps for program in self.programs)

    @property
    def differences(self) -> list[Difference]:
        """The first difference of each program that has one."""
        return [p.difference for p in self.programs if p.difference is not None]

    @property
    def not_replayed(self) -> Counter[str]:
        """Programs not replayed to their end, by reason."""
        return Counter(p.not_replayed for p in self.programs if p.not_replayed is not None)

    def asdict(self) -> Json:
        """Return what `run_cli` prints as JSON."""
        return {
            "file": str(self.path),
            "kernel": self.kernel,
            "family": self.family,
            "programs": len(self.programs),
            "steps": self.steps,
            "differ": len(self.differences),
            "not_replayed": dict(self.not_replayed),
            "differences": [difference.asdict() for difference in self.differences],
        }

    def __str__(self) -> str:
        """Return one line."""
        text = (
            f"{self.kernel}  {self.family}  {len(self.programs)} programs, {self.steps} steps: "
            f"{len(self.differences)} differ"
        )
        if reasons := self.not_replayed:
            text += f", {reasons.total()} not replayed to the end ("
            text += ", ".join(f"{count} {reason}" for reason, count in reasons.items()) + ")"
        return text


def replay_program(program: Program) -> ProgramReport:
    """Run a recorded program under the profile of its kernel and compare every step.

    Parameters
    ----------
    program : Program
        From `read_programs`.

    Returns
    -------
    ProgramReport
        The first difference ends the program.
    """
    if reason := program.unmodelled():
        return ProgramReport(program.id, 0, not_replayed=reason)
    comparison = Comparison(program)
    for number in range(len(program.steps)):
        if reason := comparison.unmodelled(number):
            return ProgramReport(program.id, number, not_replayed=reason)
        difference = comparison.step(number)
        if difference is not None:
            return ProgramReport(program.id, number + 1, difference)
    return ProgramReport(program.id, len(program.steps))


def replay_file(path: str | Path) -> FileReport:
    """Replay every program of a trace file.

    Parameters
    ----------
    path : str or Path
        A file such as ``6.18-shmem.jsonl.gz``.

    Returns
    -------
    FileReport

    Raises
    ------
    InvalidArgument
        The file is not a trace.
    OSError
        The file cannot be read.
    """
    header, programs = read_programs(path)
    reports = tuple(map(replay_program, programs))
    return FileReport(Path(path), header["kernel"], header["family"], reports)


def run_cli(paths: Iterable[str | Path], as_json: bool) -> int:
    """Replay files and print what came out.

    Parameters
    ----------
    paths : iterable of str or Path
        Trace files.
    as_json : bool
        One JSON document instead of lines.

    Returns
    -------
    int
        Exit status: 0 without a difference, 1 with any, 2 when a file cannot be read.
    """
    reports = []
    for path in paths:
        try:
            report = replay_file(path)
        except (PtwalkError, OSError) as error:
            print(f"ptwalk: {error}", file=sys.stderr)
            return 2
        reports.append(report)
        if not as_json:
            print(report, *report.differences, sep="\n", flush=True)
    if as_json:
        print(json.dumps({"files": [report.asdict() for report in reports]}, indent=2))
    return int(any(report.differences for report in reports))
