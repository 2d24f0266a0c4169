"""One run: the chosen suites after each other, and what machine they ran on."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import InvalidArgument
from . import progress
from .results import Results, describe_run, finish_run
from .settings import DEFAULT, Settings
from .suites import SUITES


def run(suites: Iterable[str] = (), settings: Settings = DEFAULT) -> Results:
    """Measure.

    Parameters
    ----------
    suites : iterable of str
        Names, see `SUITES`; none for all.
    settings : Settings
        `DEFAULT` takes minutes, `QUICK` less than one.

    Returns
    -------
    Results

    Raises
    ------
    InvalidArgument
        For an unknown suite.
    """
    chosen = [*suites] or [*SUITES]
    for name in chosen:
        if name not in SUITES:
            raise InvalidArgument(f"suite {name!r} is not known; use one of {', '.join(SUITES)}")
    facts = describe_run(settings.name)
    with progress.shown(len(chosen)) as tell:
        lines = [line for name in chosen for line in SUITES[name].run(settings, tell)]
    finish_run(facts)
    return Results(facts, lines)
