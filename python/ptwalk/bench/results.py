"""Results: what was measured on which machine, and the JSON file that holds it.

A line is one interleaved measurement, so figures of a line may be compared; figures of two lines
of one run mostly may, figures of two files never.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__, _core
from ..errors import InvalidArgument
from ..machine import kernels
from .harness import Figure

FORMAT = 1
PROFILE = "6.18"
_PEERS = ("numba", "drgn", "volatility3", "matplotlib", "rich")


@dataclass(frozen=True, slots=True)
class Line:
    """Contenders that were measured in turns on one case.

    Attributes
    ----------
    suite : str
        Whose line it is.
    tags : dict of str to str
        What the case is, such as ``{"size": "L2", "mix": "70/15/10/5"}``.
    unit : str
        Of the figures.
    base : str
        The contender that the others are compared with.
    figures : dict of str to Figure
        By contender.
    missing : dict of str to str
        Contenders that were not measured, and why.
    facts : dict of str to number
        What else was counted: bytes, tables, entries.
    """

    suite: str
    tags: dict[str, str]
    unit: str
    base: str
    figures: dict[str, Figure]
    missing: dict[str, str] = field(default_factory=dict)
    facts: dict[str, float] = field(default_factory=dict)

    @property
    def case(self) -> str:
        """The tags in words."""
        return ", ".join(self.tags.values())

    def ratio(self, over: str, under: str, *, of: str = "least") -> float | None:
        """Return how many times `over` is of `under`; None unless both were measured.

        Parameters
        ----------
        over, under : str
            Contenders.
        of : {"least", "median"}
            Which trials are compared.
        """
        if over not in self.figures or under not in self.figures:
            return None
        below = float(getattr(self.figures[under], of))
        return float(getattr(self.figures[over], of)) / below if below else None


@dataclass(frozen=True, slots=True)
class Results:
    """One run.

    Attributes
    ----------
    run : dict of str to str
        Machine, versions, date, settings and method.
    lines : list of Line
        In the order of measurement.
    """

    run: dict[str, str]
    lines: list[Line]

    def of(self, suite: str, **tags: str) -> Iterator[Line]:
        """Yield the lines of a suite that have these tags."""
        for line in self.lines:
            if line.suite == suite and tags.items() <= line.tags.items():
                yield line

    def save(self, path: Path) -> None:
        """Write a JSON file."""
        lines = [asdict(line) for line in self.lines]
        document = {"format": FORMAT, "run": self.run, "lines": lines}
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def load(path: Path) -> Results:
    """Read a file that `Results.save` wrote.

    Raises
    ------
    InvalidArgument
        For a file that cannot be read or holds something else.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["format"] != FORMAT:
            raise InvalidArgument(
                f"{path} has format {document['format']}, this is for {FORMAT}; measure again"
            )
        return Results(document["run"], [_line(fields) for fields in document["lines"]])
    except (OSError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, InvalidArgument):
            raise
        raise InvalidArgument(
            f"{path} holds no results ({error!r}); `ptwalk bench --json FILE` writes them"
        ) from None


def _line(fields: Mapping[str, Any]) -> Line:
    figures = {name: Figure(**figure) for name, figure in fields["figures"].items()}
    return Line(**{**fields, "figures": figures})


def describe_run(settings: str) -> dict[str, str]:
    """Say on what and how a run is made."""
    versions = {name: version for name in _PEERS if (version := _version(name))}
    return {
        "profile": PROFILE,
        "settings": settings,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": _cpu(),
        "cpus": str(len(os.sched_getaffinity(0))),
        "caches": _caches(),
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB",
        "huge pages": _bracketed("/sys/kernel/mm/transparent_hugepage/enabled"),
        "virtual": _virtual(),
        "kernel": f"{platform.system()} {platform.release()}",
        "compiler": _core.compiler,
        "python": platform.python_version(),
        "ptwalk": __version__,
        "kernels": ", ".join(kernels()),
        "numpy": np.__version__,
        **versions,
        "load before": _load(),
    }


def finish_run(run: dict[str, str]) -> None:
    """Add what is known at the end only: a busy machine makes figures worthless."""
    run["load after"] = _load()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _cpu() -> str:
    facts = dict(re.findall(r"^(.+?)\s*: (.*)$", _read("/proc/cpuinfo"), re.MULTILINE))
    name = facts.get("model name", platform.machine())
    family = ", ".join(f"{key} {facts[key]}" for key in ("cpu family", "model") if key in facts)
    return f"{name} ({family})" if family else name


def _caches() -> str:
    found = []
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = (_read(str(index / name)) for name in ("level", "type", "size"))
        if kind != "Instruction" and size:
            found.append(f"L{level} {size}")
    return ", ".join(found) or "unknown"


def _bracketed(path: str) -> str:
    text = _read(path)
    return text[text.find("[") + 1 : text.find("]")] if "[" in text else "unknown"


def _virtual() -> str:
    flags = _read("/proc/cpuinfo")
    return "yes" if " hypervisor" in flags else "no"


def _load() -> str:
    return f"{os.getloadavg()[0]:.2f}"


def in_child(program: str, *arguments: str) -> Any:
    """Run a program in a Python of its own and return what it prints, read as JSON.

    Parameters
    ----------
    program : str
        Source text; it finds the same ptwalk.
    arguments : str
        What it finds in ``sys.argv[1:]``.

    Raises
    ------
    subprocess.CalledProcessError
        It fails; its stderr has passed through.
    """
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=child_environment(),
    )
    return json.loads(done.stdout)


def child_environment() -> dict[str, str]:
    """Return an environment in which a Python finds the same ptwalk."""
    source = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path}


def not_installed(package: str) -> str:
    """Say what to type for a contender that is missing."""
    return f"not installed: pip install {package}"
