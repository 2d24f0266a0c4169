"""Executions per second of the fuzz targets under libFuzzer, per second of processor time.

`python benchmarks/fuzz_rates.py [--runs N] [--json FILE]` measures what is built in build/fuzz and
build/fuzz-asan (`python3 dev.py fuzz TARGET -- -runs=0` builds and ends). Each target first grows a
corpus of inputs of up to 160 bytes from nothing, then runs from that; only the second run counts.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import tempfile
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
BUILDS = {"fuzz": "plain", "fuzz-asan": "ASan and UBSan"}
MAX_LEN = 160


def user_seconds() -> float:
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime


def fuzz(program: Path, corpus: Path, runs: int) -> float:
    """Run a target; return the processor time that it took in user space, in seconds."""
    before = user_seconds()
    options = [f"-runs={runs}", "-seed=1", f"-max_len={MAX_LEN}", "-len_control=0", "-verbosity=0"]
    subprocess.run(
        [program, *options, "-print_funcs=0", corpus],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return user_seconds() - before


def measure(program: Path, runs: int) -> tuple[float, float]:
    """Return executions per second, and the mean size of the inputs of the corpus in bytes."""
    with tempfile.TemporaryDirectory() as directory:
        corpus = Path(directory)
        fuzz(program, corpus, runs)
        sizes = [path.stat().st_size for path in corpus.iterdir()]
        start = fuzz(program, corpus, len(sizes))
        return runs / (fuzz(program, corpus, len(sizes) + runs) - start), sum(sizes) / len(sizes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=200_000, help="executions to measure")
    parser.add_argument("--json", type=Path, help="where numbers go, too")
    arguments = parser.parse_args()
    rows = []
    print("| target | build | executions/s | bytes of an input, mean |\n|---|---|---:|---:|")
    for build, what in BUILDS.items():
        for program in sorted((REPO / "build" / build).glob("fuzz_*")):
            rate, size = measure(program, arguments.runs)
            rows.append({"target": program.name, "build": what, "per_second": rate, "bytes": size})
            print(f"| {program.name} | {what} | {rate:,.0f} | {size:.0f} |", flush=True)
    if not rows:
        parser.error("nothing is built; python3 dev.py fuzz programs -- -runs=0")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
