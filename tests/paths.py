"""Finds the vector and trace files that the tests read.

They are taken from `../shared` beside the repository when it is there, and from the copy in
`tests/data` otherwise. A file counts by what its first line holds, not by its name, so that further
files of the same kinds are picked up.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[1]


def data_dir(name: str) -> Path:
    """Return the directory of "vectors" or "traces"."""
    shared = REPO.parent / "shared" / name
    copy = REPO / "tests" / "data" / name
    for candidate in (shared, copy):
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(f"no {name}: neither {shared} nor {copy} is a directory; restore one")


def first_line(path: Path) -> Any:
    """Return the first JSON line of a .jsonl.gz file, None for an empty one."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        line = lines.readline()
    return json.loads(line) if line else None


def named_vector_files() -> list[Path]:
    """Return the JSON files that hold a list of named cases."""
    return sorted(data_dir("vectors").glob("*-named*.json"))


def pte_vector_files() -> list[Path]:
    """Return the files of single PTE steps: one array a line."""
    files = sorted(data_dir("vectors").glob("*.jsonl.gz"))
    return [path for path in files if isinstance(first_line(path), list)]


def walk_vector_files() -> list[Path]:
    """Return the files of whole walks: one object with a "tree" a line."""
    files = sorted(data_dir("vectors").glob("*.jsonl.gz"))
    return [path for path in files if isinstance(c := first_line(path), dict) and "tree" in c]


def trace_files(*, kernel: str | None = None, family: str | None = None) -> list[Path]:
    """Return the recorded traces of a kernel and a family; None stands for all."""
    chosen = []
    for path in sorted(data_dir("traces").glob("*.jsonl.gz")):
        header = first_line(path)
        if not isinstance(header, dict) or header.get("type") != "header":
            continue
        if kernel in (None, header["kernel"]) and family in (None, header["family"]):
            chosen.append(path)
    return chosen
