"""``ptwalk bench``: measure or read results, print the report, write what is wished for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import InvalidArgument
from . import settings
from .document import document
from .plots import plot, pyplot
from .report import markdown, text
from .results import PROFILE, load
from .run import run


class Wishes(NamedTuple):
    """Where to write what; None for nothing."""

    json: Path | None = None
    markdown: Path | None = None
    document: Path | None = None
    plots: Path | None = None


def bench(suites: Sequence[str], source: Path | None, wishes: Wishes, *, quick: bool) -> None:
    """Run the command.

    Parameters
    ----------
    suites : sequence of str
        What to measure; all if empty.
    source : Path, optional
        Results to report instead of measuring.
    wishes : Wishes
        What to write.
    quick : bool
        Measure less of everything.

    Raises
    ------
    InvalidArgument
        Suites and a source, an unknown suite, no results in the source, a place that cannot be
        written, or pictures without matplotlib; before anything is measured.
    """
    if source and suites:
        raise InvalidArgument(f"{source} has its own suites; leave out {' '.join(suites)}")
    _check(wishes)
    print(f"profile {PROFILE}; uffd-wp-v2 where a line says so", flush=True)
    chosen = settings.QUICK if quick else settings.DEFAULT
    results = load(source) if source else run(suites, chosen)
    if wishes.json:
        results.save(wishes.json)
    print(text(results), end="", flush=True)
    for path, write in ((wishes.markdown, markdown), (wishes.document, document)):
        if path:
            path.write_text(write(results), encoding="utf-8")
    if wishes.plots:
        for path in plot(results, wishes.plots):
            print(path)


def _check(wishes: Wishes) -> None:
    """Find out now what would fail after minutes of measuring."""
    for path in filter(None, wishes):
        if not os.access(path.parent, os.W_OK):
            raise InvalidArgument(f"{path} cannot be written; make {path.parent} first")
    if wishes.plots:
        pyplot()
