"""What a campaign came to: findings for people and programs, and what its corpus reached."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InvalidArgument
from .bench import Workbench
from .c_program import c_program_of
from .campaign import Campaign, Found, Spec
from .corpus import Corpus
from .executor import SETUPS
from .findings import Finding
from .journal import read_identity, read_journal
from .mutate import Programs
from .program import FORMAT_VERSION, from_version_1
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
    comments = [f"# {finding.title}", f"# after the setup {finding.setup}:"]
    comments += [f"#   {line}" for line in to_text(SETUPS[finding.setup]).splitlines()]
    files = {
        "program.bin": header + finding.program,
        "program.txt": "\n".join([*comments, to_text(finding.program), ""]).encode(),
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
        It is none, or of a later version.
    """
    data = path.read_bytes()
    if not data.startswith(MAGIC) or len(data) < _HEADER:
        raise InvalidArgument(f"{path} holds no program; a finding's program.bin does")
    version = int.from_bytes(data[len(MAGIC) : _HEADER], "little")
    program = data[_HEADER:]
    if version == 1:
        return from_version_1(program)
    if version != FORMAT_VERSION:
        raise InvalidArgument(
            f"{path} has format version {version}; this ptwalk reads 1 to {FORMAT_VERSION}, take "
            "the one that wrote it"
        )
    return program


def told(found: Iterable[Found]) -> str:
    """Return findings as numbered paragraphs, the gravest first, and then their setups."""
    lines = []
    ordered = sorted(found, key=lambda each: each.finding.rank)
    for number, each in enumerate(ordered, 1):
        finding = each.finding
        operations = to_text(finding.program).splitlines()
        what = f"{number}  {finding.title}"
        lines.append(
            f"{what:{_WIDTH}}  ({len(operations)} operations after the setup {finding.setup}, "
            f"found after {each.seconds:.1f} s)"
        )
        lines += [f"     {text}" for text in operations]
        lines += [f"     {state}" for state in finding.states]
    for setup in sorted({each.finding.setup for each in ordered}):
        lines.append(f"setup {setup}")
        lines += [f"     {text}" for text in to_text(SETUPS[setup]).splitlines()]
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
    """Return a campaign and the programs of its corpus, which are the files of `corpus` there.

    Raises
    ------
    InvalidArgument
        There is no campaign in the directory, or it is damaged.
    """
    path = directory / "campaign.json"
    if not path.exists():
        raise InvalidArgument(f"{directory} holds no campaign; `ptwalk fuzz --corpus` makes one")
    known = read_identity(path)
    fields = {name: known[name] for name in Spec.__dataclass_fields__ if name in known}
    lists = {name: tuple(fields[name]) for name in ("setups", "judges")}
    results = map(TaskResult.from_json, read_journal(directory / "journal"))
    done = {result.task: result for result in results}
    corpus = Corpus(known["features"])
    for task in takewhile(done.__contains__, count()):  # as a campaign takes them in
        corpus.add(done[task].entries)
    return Spec(**{**fields, **lists}), corpus.programs


def coverage_of(directory: Path) -> dict[str, Any]:
    """Return as a JSON document by how many programs of a corpus each branch is reached."""
    spec, programs = corpus_of(directory)
    benches = [Workbench(spec, setup) for setup in spec.setups]
    names = benches[0].branches
    counts = np.zeros(len(names), np.int64)
    for first in range(0, len(programs), _BATCH):
        part = Programs.of(programs[first : first + _BATCH])
        by_setup = [bench.run(part).coverage > 0 for bench in benches]
        counts += np.logical_or.reduce(by_setup).sum(axis=0)
    sides = [spec.profile, spec.against][: len(names) // len(set(names))]
    rows = zip(sides, counts.reshape(len(sides), -1).tolist(), strict=True)
    return {
        "campaign": asdict(spec),
        "programs": len(programs),
        "sides": [
            {"profile": side, "branches": dict(zip(names, row, strict=False))} for side, row in rows
        ],
    }


def coverage_report(document: dict[str, Any]) -> str:
    """Return what `coverage_of` found as text: what is reached, and the names of the rest."""
    lines = [f"corpus of {document['programs']} programs"]
    for side in document["sides"]:
        lines += _side(side["profile"], side["branches"])
    return "\n".join(lines)


def _side(side: str, branches: dict[str, int]) -> list[str]:
    """Say what one profile reached, function by function, then what it did not."""
    groups: dict[str, list[int]] = {}
    for name, reached in branches.items():
        groups.setdefault(name.partition(":")[0], []).append(reached)
    missing = [name for name, reached in branches.items() if not reached]
    lines = [f"{side}: {len(branches) - len(missing)} of {len(branches)} branches reached"]
    lines += [
        f"  {sum(number > 0 for number in reached):5} of {len(reached):5}  {group}"
        for group, reached in groups.items()
    ]
    if missing:
        lines += [f"{side}: nothing reaches", *(f"  {name}" for name in missing)]
    return lines
