"""Fewer operations in what the corpus keeps: programs that are short run fast and mix well."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from .corpus import Entry, Mask
from .mutate import OP_BYTES, Programs


def trimmed(reached: Callable[[Programs], Mask], entries: Sequence[Entry]) -> list[Entry]:
    """Drop operations, the last first, as long as an entry reaches what it is kept for.

    Parameters
    ----------
    reached : callable
        Returns the features that programs reach, a row each.
    entries : sequence of Entry
        Programs and the features that must stay; all are tried side by side.

    Returns
    -------
    list of Entry
        In the same order. No operation of one can be left out after those behind it.
    """
    left = [entry.program for entry in entries]
    for at in reversed(range(0, max(map(len, left), default=0), OP_BYTES)):
        rows = [i for i, program in enumerate(left) if OP_BYTES < len(program) > at]
        fewer = [left[i][:at] + left[i][at + OP_BYTES :] for i in rows]
        if not fewer:
            continue
        for i, program, found in zip(rows, fewer, reached(Programs.of(fewer)), strict=True):
            if np.all(found[list(entries[i].features)]):
                left[i] = program
    return [replace(entry, program=program) for entry, program in zip(entries, left, strict=True)]
