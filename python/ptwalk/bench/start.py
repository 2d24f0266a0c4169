"""Start: how long imports take, each in a Python of its own, numpy being there already."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator

from .harness import Figure
from .progress import Progress
from .results import Line, child_environment, in_child, not_installed
from .settings import Settings

NAME = "start"
TITLE = "Import, beyond numpy"
PTWALK, NUMPY = "ptwalk", "numpy itself"
MODULES = {
    NUMPY: "numpy",
    PTWALK: "ptwalk",
    "numba": "numba",
    "drgn": "drgn",
    "volatility3": "volatility3.framework.layers.intel",
}
_PROGRAM = """
import sys, time
if sys.argv[1] != "numpy":
    import numpy
start = time.perf_counter_ns()
__import__(sys.argv[1])
print((time.perf_counter_ns() - start) / 1e6)
"""


def run(settings: Settings, progress: Progress) -> Iterator[Line]:
    """Measure in turns; the first of each is not counted, for files must be read."""
    progress(NAME, ", ".join(MODULES))
    modules = {
        name: module
        for name, module in MODULES.items()
        if importlib.util.find_spec(module.partition(".")[0]) is not None
    }
    missing = {name: not_installed(name) for name in MODULES if name not in modules}
    trials: dict[str, list[float]] = {name: [] for name in modules}
    for _ in range(settings.starts + 1):
        for name, module in modules.items():
            trials[name].append(in_child(_PROGRAM, module))
    figures = {name: Figure.of(values[1:]) for name, values in trials.items()}
    yield Line(NAME, {"what": "import"}, "ms", PTWALK, figures, missing, _modules())


def _modules() -> dict[str, float]:
    """Return the ms that each of ptwalk's modules takes by itself, the slowest first."""
    command = [sys.executable, "-X", "importtime", "-c", "import numpy, ptwalk"]
    done = subprocess.run(
        command, stderr=subprocess.PIPE, text=True, check=True, env=child_environment()
    )
    rows = re.findall(r"^import time: +(\d+) \| +\d+ \| +(ptwalk\S*)$", done.stderr, re.MULTILINE)
    times = {name: int(microseconds) / 1000 for microseconds, name in rows}
    return dict(sorted(times.items(), key=lambda item: -item[1]))
