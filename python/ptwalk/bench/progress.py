"""What a run is at: a bar where rich is installed and stderr is a terminal, otherwise lines."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Progress(Protocol):
    """Is told of every case before it is measured."""

    def __call__(self, suite: str, case: str) -> None:
        """Say what is measured now."""


@contextmanager
def shown(suites: int) -> Iterator[Progress]:
    """Show progress on stderr while the block runs.

    Parameters
    ----------
    suites : int
        How many suites will be measured; the bar moves with each.
    """
    if sys.stderr.isatty() and importlib.util.find_spec("rich") is not None:
        with _bar(suites) as progress:
            yield progress
    else:
        yield _line


def _line(suite: str, case: str) -> None:
    print(f"{suite}: {case}", file=sys.stderr, flush=True)


@contextmanager
def _bar(suites: int) -> Iterator[Progress]:
    from rich import progress as rich
    from rich.console import Console

    columns = [
        rich.SpinnerColumn(),
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.TimeElapsedColumn(),
    ]
    with rich.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=suites)
        seen: list[str] = []

        def tell(suite: str, case: str) -> None:
            if suite not in seen:
                seen.append(suite)
            bar.update(task, description=f"{suite}: {case}", completed=len(seen) - 1)

        yield tell
