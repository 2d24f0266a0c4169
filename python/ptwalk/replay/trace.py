"""Recorded programs: reads a trace file and keeps what the recorded kernel's memory looked like.

A trace is gzipped JSON lines, a header and then one program a line, as the README beside the
traces describes it. Entries are packed into two words a page (the raw entry and its facts) so that
a step is compared by comparing arrays. Transparent and hugetlb huge pages are not represented;
the two `unmodelled` say where they begin.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InvalidArgument
from ..pte import Kind

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
Json = dict[str, Any]

LEVEL_NAMES = {1: "pte", 2: "pmd", 3: "pud", 4: "pgd"}
LEVELS = {name: number for number, name in LEVEL_NAMES.items()}
_PTRS_PER_TABLE = 512
CLASSES = {
    "none": Kind.NONE,
    "present": Kind.PRESENT,
    "huge": Kind.HUGE,
    "swap": Kind.SWAP,
    "marker": Kind.MARKER,
    "migration": Kind.MIGRATION,
    "hwpoison": Kind.HWPOISON,
}
PAGE_KINDS = {"anon": 1, "file": 2, "zero": 3}

# Fields of a facts word. ex is 1 for "not exclusive", 2 for "exclusive"; 0: not an anonymous page.
CLS_SHIFT, MK_SHIFT, KIND_SHIFT, EX_SHIFT, PM_SHIFT = 4, 8, 12, 16, 24
PAGEMAP_SHIFT = 55
ACCESSED = 1 << 5


@dataclass(frozen=True)
class Region:
    """A named range of a program.

    Attributes
    ----------
    name : str
    pages : int
        Length in pages of 4 KiB.
    addr : int
        Address in bytes.
    """

    name: str
    pages: int
    addr: int

    @property
    def end(self) -> int:
        """First address behind the region."""
        return self.addr + self.pages * PAGE_SIZE


@dataclass(frozen=True)
class Program:
    """One recorded program, as its line in the file says; `steps` and `regions` are the JSON."""

    id: str
    family: str
    kernel: str
    volatile: frozenset[str]
    regions: Mapping[str, Json]
    steps: list[Json]

    @classmethod
    def from_json(cls, line: Json) -> Program:
        """Take the program out of its decoded line."""
        return cls(
            id=line["id"],
            family=line["family"],
            kernel=line["kernel"],
            volatile=frozenset(line["volatile"]),
            regions={region["name"]: region for region in line["regions"]},
            steps=line["steps"],
        )

    def unmodelled(self) -> str | None:
        """Return why no step of the program can be replayed, None when they can."""
        for region in self.regions.values():
            if region["page_shift"] != PAGE_SHIFT or region["backing"].startswith("hugetlb"):
                return "hugetlb"
        return None


def read_programs(path: str | Path) -> tuple[Json, Iterator[Program]]:
    """Return the header of a trace file and its programs, decoded one at a time.

    Raises
    ------
    InvalidArgument
        The file is not a trace.
    OSError
        The file cannot be read.
    """
    lines = _lines(Path(path))
    header = next(lines, {})
    if header.get("type") != "header" or header.get("format") != "ptwalk-trace":
        raise InvalidArgument(
            f"{path} is not a trace: its first line is no ptwalk-trace header; "
            "give files like 6.18-shmem.jsonl.gz"
        )
    if header["version"] != 1:
        raise InvalidArgument(
            f"{path} is a trace of version {header['version']}; this ptwalk reads version 1"
        )
    return header, (Program.from_json(line) for line in lines)


def _lines(path: Path) -> Iterator[Json]:
    """Decode the lines of a gzipped JSON lines file, one at a time."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)
    except (gzip.BadGzipFile, EOFError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InvalidArgument(
            f"{path} is not a trace: {error}; give gzipped JSON lines like 6.18-shmem.jsonl.gz"
        ) from error


class Pages:
    """The recorded entries of one region in one process.

    Attributes
    ----------
    raw : ndarray of uint64, (pages,)
        Entries as recorded: frame and offset fields cleared.
    facts : ndarray of uint64, (pages,)
        Level, class, marker bits, page kind, exclusivity and pagemap bits, packed.
    names : ndarray of int64, (pages,)
        Recorded identity: of a page positive, of a swap slot negative, 0 for none and the zero
        page.
    named : ndarray of intp
        Pages that have a name.
    heads : ndarray of intp
        Pages that differ from the one before, and page 0.
    """

    def __init__(self, pages: int) -> None:
        self.raw: U64 = np.zeros(pages, dtype=np.uint64)
        self.facts: U64 = np.zeros(pages, dtype=np.uint64)
        self.names: I64 = np.zeros(pages, dtype=np.int64)
        self.named = self.heads = np.zeros(0, dtype=np.intp)

    def apply(self, runs: Iterable[Json]) -> None:
        """Store runs of the README's shape; pages that are not mentioned stay as they are."""
        for run in runs:
            where = slice(run["i"], run["i"] + run["n"])
            self.raw[where] = int(run.get("raw", "0"), 16)
            self.facts[where] = facts_of(run)
            name = name_number(run)
            self.names[where] = name
            if run.get("pgstep") == 1:
                self.names[where] += np.arange(0, run["n"] << 1, 2, dtype=np.int64)
        change = (self.raw[1:] != self.raw[:-1]) | (self.facts[1:] != self.facts[:-1])
        self.heads = np.concatenate(([0], np.flatnonzero(change) + 1))
        self.named = np.flatnonzero(self.names)

    @classmethod
    def of(cls, run: Json) -> Pages:
        """Return one page from a run without position, as a message has it."""
        page = cls(1)
        page.apply([{"i": 0, "n": 1, **run}])
        return page


def facts_of(run: Json) -> int:
    """Pack the facts of a run."""
    ex: int = 1 + run["ex"] if "ex" in run else 0
    mk: int = run.get("mk", 0)
    return (
        LEVELS[run["lvl"]]
        | CLASSES[run["cls"]] << CLS_SHIFT
        | mk << MK_SHIFT
        | PAGE_KINDS.get(run.get("pk", ""), 0) << KIND_SHIFT
        | ex << EX_SHIFT
        | int(run.get("pm", "0"), 16) >> PAGEMAP_SHIFT << PM_SHIFT
    )


def name_number(run: Json) -> int:
    """Return a number for the identity of a run: 6 for a3, 7 for f3, -3 for slot s3, 0 for zero."""
    name: str = run.get("pg", "zero")
    if name == "zero":
        return -int(run["slot"][1:]) if "slot" in run else 0
    return int(name[1:]) << 1 | (name[0] == "f")


def name_of(number: int) -> str:
    """Return the recorded name of a `name_number`."""
    if number < 0:
        return f"s{-number}"
    return f"{'af'[number & 1]}{number >> 1}" if number else ""


def describe_facts(facts: int) -> str:
    """Spell a facts word as the traces do: ``pte present anon ex=1 pm=0x81…``."""
    classes = {kind: name for name, kind in CLASSES.items()}
    kinds = {number: name for name, number in PAGE_KINDS.items()}
    number = facts >> CLS_SHIFT & 0xF
    words = [LEVEL_NAMES.get(facts & 0xF, "p4d"), classes.get(Kind(number), Kind(number).name)]
    if kind := facts >> KIND_SHIFT & 0xF:
        words.append(kinds[kind])
    if ex := facts >> EX_SHIFT & 0xF:
        words.append(f"ex={ex - 1}")
    if mk := facts >> MK_SHIFT & 0xF:
        words.append(f"mk={mk}")
    words.append(f"pm={facts >> PM_SHIFT << PAGEMAP_SHIFT:#x}")
    return " ".join(words)


class Recorded:
    """The recorded kernel's memory after the steps applied so far.

    Attributes
    ----------
    pages : dict of (process, region) to Pages
    vmas : dict of (process, region) to list of VMAs as recorded
    resident : dict of region to ndarray of uint8
        mincore() of each page as ASCII "0", "1" or "?".
    """

    def __init__(self, program: Program) -> None:
        self._regions = program.regions
        self.pages: dict[tuple[str, str], Pages] = {}
        self.vmas: dict[tuple[str, str], list[Json]] = {}
        self.resident: dict[str, npt.NDArray[np.uint8]] = {}

    def unmodelled(self, step: Json) -> str | None:
        """Return why the next step cannot be replayed, None when it can."""
        op = step["op"]
        if op["name"] == "madvise" and op["advice"] == "COLLAPSE":
            return "MADV_COLLAPSE"
        for process in step.get("state", {}).values():
            for run in (run for runs in process.values() for run in runs):
                if run["cls"] == "huge" or "thp" in run.get("pk", ""):
                    return "huge page"
        for name, text in step.get("resident", {}).items():
            if name in self.resident:  # 512 pages come in at once only as one
                more = text.count("1") - np.count_nonzero(self.resident[name] == ord("1"))
                if more > _PTRS_PER_TABLE // 2 and more > op.get("count", 1):
                    return "huge page"
        return None

    def apply(self, step: Json) -> None:
        """Take over what changed in a step."""
        for proc, regions in step.get("state", {}).items():
            for name, runs in regions.items():
                key = (proc, name)
                if key not in self.pages:
                    self.pages[key] = Pages(self._regions[name]["pages"])
                self.pages[key].apply(runs)
        for proc, regions in step.get("vmas", {}).items():
            for name, vmas in regions.items():
                self.vmas[proc, name] = vmas
        for name, text in step.get("resident", {}).items():
            self.resident[name] = np.frombuffer(text.encode(), dtype=np.uint8)

    def forget(self, proc: str) -> None:
        """Drop a process that exited."""
        for key in [key for key in self.pages if key[0] == proc]:
            del self.pages[key]
        for key in [key for key in self.vmas if key[0] == proc]:
            del self.vmas[key]

    def names(self) -> set[int]:
        """Return the pages that some entry names."""
        found: set[int] = set()
        for pages in self.pages.values():
            found.update(pages.names[pages.names > 0].tolist())
        return found

    def pages_out(self, step: Json) -> list[int]:
        """Return which pages of its range an MADV_PAGEOUT step took, relative to the region."""
        op = step["op"]
        now = self.pages[step["proc"], op["region"]]
        out = []
        for run in step.get("state", {}).get(step["proc"], {}).get(op["region"], ()):
            if run["cls"] == "present":
                continue
            first = max(run["i"], op["first"])
            end = min(run["i"] + run["n"], op["first"] + op["count"])
            classes = now.facts[first:end] >> np.uint64(CLS_SHIFT) & np.uint64(0xF)
            present = classes == Kind.PRESENT
            out += (first + np.flatnonzero(present)).tolist()
        return out
