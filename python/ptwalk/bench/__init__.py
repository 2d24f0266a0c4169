"""Benchmarks of ptwalk against the machine's limit, what others offer, and the running kernel.

``ptwalk bench`` runs them; a script does the same:

>>> from ptwalk import bench
>>> results = bench.run(["calls"], bench.QUICK)  # doctest: +SKIP
>>> print(bench.text(results))  # doctest: +SKIP

A suite is a module with `NAME`, `TITLE` and `run(settings, progress)`, which yields lines;
`suites.py` lists them. Peers are optional: what is not installed is named in the report.
"""

from .document import document
from .goals import outcomes
from .plots import plot
from .report import markdown, text
from .results import Line, Results, load
from .run import run
from .settings import DEFAULT, QUICK, Settings
from .suites import SUITES

__all__ = [
    "DEFAULT",
    "QUICK",
    "SUITES",
    "Line",
    "Results",
    "Settings",
    "document",
    "load",
    "markdown",
    "outcomes",
    "plot",
    "run",
    "text",
]
