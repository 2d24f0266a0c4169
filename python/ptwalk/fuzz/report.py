"""What a campaign came to: findings for people and programs, and what its corpus reached."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InvalidArgument
from .bench import Workbench
from .c_program import c_program_of
from .campaign import Campaign, Found, Spec, read_identity
from .findings import Finding
from .journal import read_journal
from .mutate import Programs
from .program import FORMAT_VERSION
from .script import script_of
from .task import TaskResult
from .text import to_text

MAGIC = b"ptwalk-fuzz\0"  # before the version (u32, little endian) and the program
_HEADER = len(MAGIC) + 4
_WIDTH = 72
_BATCH = 1024


def files_of(finding: Finding) -> dict[str, bytes]:
    """Return the files of a finding by name: the program, its text, and what shows it."""
    header = MAGIC + FORMAT_VERSION.to_bytes(4, "little")
    files = {
        "program.bin": header + finding.program,
        "program.txt": f"# {finding.title}\n{to_text(finding.program)}\n".encode(),
        "show.py": script_of(finding),
    }
    if c_program := c_program_of(finding):
        files["show.c"] = c_program
    return files


def read_program(path: Path) -> bytes:
    """Return the program of a file that `files_of` made.

    Raises
    ------
    InvalidArgument
        It is none, or of another version.
    """
    data = path.read_bytes()
    if not data.startswith(MAGIC) or len(data) < _HEADER:
        raise InvalidArgument(f"{path} holds no program; a finding's program.bin does")
    version = int.from_bytes(data[len(MAGIC) : _HEADER], "little")
    if version != FORMAT_VERSION:
        raise InvalidArgument(
            f"{path} has format version {version}; this ptwalk reads {FORMAT_VERSION}"
        )
    return data[_HEADER:]


def told(found: Iterable[Found]) -> str:
    """Return findings as numbered paragraphs, the gravest first."""
    lines = []
    for number, each in enumerate(sorted(found, key=lambda each: each.finding.rank), 1):
        finding = each.finding
        operations = to_text(finding.program).splitlines()
        what = f"{number}  {finding.title}"
        lines.append(
            f"{what:{_WIDTH}}  ({len(operations)} operations, found after {each.seconds:.1f} s)"
        )
        lines += [f"     {text}" for text in operations]
        lines += [f"     {state}" for state in finding.states]
    return "\n".join(lines)


def document(campaign: Campaign, branches: int) -> dict[str, Any]:
    """Return a campaign as a JSON document."""
    state = campaign.state()
    return {
        "campaign": asdict(campaign.spec),
        "tasks": state.tasks,
        "seconds": round(state.seconds, 1),
        "counts": state.counts,
        "corpus": state.corpus,
        "branches": branches,
        "reached": state.reached,
        "findings": [
            {
                "task": each.task,
                "seconds": round(each.seconds, 1),
                "key": each.finding.key,
                "text": to_text(each.finding.program).splitlines(),
                **each.finding.to_json(),
            }
            for each in campaign.findings.values()
        ],
    }


def corpus_of(directory: Path) -> tuple[Spec, list[bytes]]:
    """Return a campaign and the programs of its corpus.

    Raises
    ------
    InvalidArgument
        There is no campaign in the directory.
    """
    path = directory / "campaign.json"
    if not path.exists():
        raise InvalidArgument(f"{directory} holds no campaign; `ptwalk fuzz --corpus` makes one")
    known = read_identity(path)
    fields = {name: known[name] for name in Spec.__dataclass_fields__ if name in known}
    lists = {name: tuple(fields[name]) for name in ("setups", "judges")}
    results = map(TaskResult.from_json, read_journal(directory / "journal"))
    programs = [entry.program for result in results for entry in result.entries]
    return Spec(**{**fields, **lists}), programs


def coverage_report(directory: Path) -> str:
    """Return what the corpus of a campaign reached, and by name what nothing reaches."""
    spec, programs = corpus_of(directory)
    benches = [Workbench(spec, setup) for setup in spec.setups]
    names = benches[0].branches
    counts = np.zeros(len(names), np.int64)
    for first in range(0, len(programs), _BATCH):
        part = Programs.of(programs[first : first + _BATCH])
        by_setup = [bench.run(part).coverage > 0 for bench in benches]
        counts += np.logical_or.reduce(by_setup).sum(axis=0)
    sides = [spec.profile, spec.against][: len(names) // len(set(names))]
    size = len(names) // len(sides)
    lines = [f"{len(programs)} programs"]
    for i, side in enumerate(sides):
        reached = counts[i * size : (i + 1) * size]
        lines += _side(side, names[:size], reached.tolist())
    return "\n".join(lines)


def _side(side: str, names: Sequence[str], reached: Sequence[int]) -> list[str]:
    """Say what one profile reached, group by group, then what it did not."""
    groups: dict[str, list[int]] = {}
    for name, count in zip(names, reached, strict=True):
        groups.setdefault(name.partition("/")[0], []).append(count)
    total = sum(count > 0 for count in reached)
    lines = [f"{side}: {total} of {len(names)} branches reached"]
    lines += [
        f"  {sum(count > 0 for count in counts):5} of {len(counts):5}  {group}"
        for group, counts in groups.items()
    ]
    missing = [name for name, count in zip(names, reached, strict=True) if not count]
    if missing:
        lines += [f"{side}: nothing reaches", *(f"  {name}" for name in missing)]
    return lines
