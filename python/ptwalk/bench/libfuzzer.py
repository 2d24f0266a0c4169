"""Executions of the libFuzzer targets that are built in this checkout, in processor time.

Each target first grows a corpus from nothing, then runs from that; only the second run counts.
"""

from __future__ import annotations

import resource
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .harness import Figure
from .progress import Progress
from .results import Line
from .settings import Settings

NAME = "libfuzzer"
TITLE = "Fuzz targets under libFuzzer"
PLAIN, SANITIZED = "plain", "ASan and UBSan"
TARGETS = ("programs", "executors", "kernels")
_BUILDS = {PLAIN: ("fuzz", ""), SANITIZED: ("fuzz-asan", " --sanitize")}
_BYTES = 160
_BUILT = Path(__file__).resolve().parents[3] / "build"


def run(settings: Settings, progress: Progress) -> Iterator[Line]:
    """Measure every target, plain and with sanitizers."""
    for target in TARGETS:
        progress(NAME, target)
        figures, missing, facts = {}, {}, {}
        for name, (build, option) in _BUILDS.items():
            program = _BUILT / build / f"fuzz_{target}"
            if program.exists():
                figures[name], facts[f"input bytes, {name}"] = measure(program, settings.executions)
            else:
                missing[name] = f"not built: python3 dev.py fuzz {target}{option} -- -runs=0"
        yield Line(NAME, {"target": target}, "ns/execution", PLAIN, figures, missing, facts)


def measure(program: Path, executions: int) -> tuple[Figure, float]:
    """Return the time of an execution in ns, and the mean size of an input of the corpus.

    Parameters
    ----------
    program : Path
        A target, linked with libFuzzer.
    executions : int
        How many to measure.

    Raises
    ------
    subprocess.CalledProcessError
        The target crashed: it found something.
    """
    with tempfile.TemporaryDirectory() as directory:
        corpus = Path(directory)
        _fuzz(program, corpus, executions)
        sizes = [path.stat().st_size for path in corpus.iterdir()]
        start = _fuzz(program, corpus, len(sizes))
        whole = _fuzz(program, corpus, len(sizes) + executions)
    # Of very few executions nothing may be left but noise; then starting counts too.
    taken = whole - start if whole > start else whole
    return Figure.of([taken / executions * 1e9]), sum(sizes) / max(len(sizes), 1)


def _fuzz(program: Path, corpus: Path, runs: int) -> float:
    """Run a target; return the processor time that it took in user space, in seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    # The peak that libFuzzer limits begins with that of the process that started it: with ours.
    options = [
        "-rss_limit_mb=0",
        f"-runs={runs}",
        "-seed=1",
        f"-max_len={_BYTES}",
        "-len_control=0",
        "-verbosity=0",
    ]
    subprocess.run(
        [program, *options, "-print_funcs=0", corpus],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=corpus,
    )
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
