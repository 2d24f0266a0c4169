"""The named cases of section 9 of the v2 spec, as they are stored.

Groups by first letter of the id: A present, B mprotect, N NUMA, S swap, M none and marker, T P W
tables, H hugetlb, I ioctl checks, F faults, zap and fork. Format: data/vectors/README.md.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from paths import named_vector_files

Case = dict[str, Any]

CASES: list[Case] = [
    case for path in named_vector_files() for case in json.loads(path.read_text(encoding="utf-8"))
]


def group(letters: str) -> list[Any]:
    """Return the cases of some groups as parameters."""
    return [pytest.param(case, id=case["id"]) for case in CASES if case["id"][0] in letters]
