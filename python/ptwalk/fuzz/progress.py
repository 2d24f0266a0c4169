"""How far a campaign is, while it runs: one live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from .campaign import State

Progress = Callable[[State], None]
_EVERY = 10.0  # seconds between plain lines


def line(state: State, branches: int) -> str:
    """Return a state in one line."""
    programs = state.counts.get("programs", 0)
    rate = programs / state.seconds if state.seconds else 0
    return (
        f"{state.seconds:5.0f} s  {state.tasks} tasks  {programs} programs  {rate:.0f}/s  "
        f"corpus {state.corpus}  branches {state.reached}/{branches}  findings {state.findings}"
    )


def _plain(branches: int, out: TextIO) -> Progress:
    last = [0.0, -1]

    def tell(state: State) -> None:
        now = time.monotonic()
        if now - last[0] >= _EVERY or state.findings != last[1]:
            last[:] = [now, state.findings]
            print(line(state, branches), file=out, flush=True)

    return tell


@contextmanager
def progress(branches: int, out: TextIO | None = None) -> Iterator[Progress]:
    """Tell states while the block runs.

    Parameters
    ----------
    branches : int
        How many there are.
    out : text file, optional
        Where to; default stderr. A terminal has one line that changes, if rich is installed
        (``pip install ptwalk[ui]``); anything else a line every ten seconds, and when something is
        found.

    Yields
    ------
    callable
        To be called with each state.
    """
    out = sys.stderr if out is None else out
    if not out.isatty():
        yield _plain(branches, out)
        return
    try:
        from rich.console import Console
    except ImportError:
        yield _plain(branches, out)
        return
    with Console(file=out).status("starting workers") as status:
        yield lambda state: status.update(line(state, branches))
