"""Results made up for tests: a line for every suite, with figures that are easy to check."""

from __future__ import annotations

from typing import Any

from ptwalk.bench.harness import Figure
from ptwalk.bench.results import Line, Results

RUN = {
    "profile": "6.18",
    "settings": "quick",
    "date": "2026-01-01 00:00 UTC",
    "cpu": "a processor",
    "cpus": "2",
    "kernel": "Linux 6.18.0",
    "compiler": "GCC 12.2.0",
    "kernels": "scalar, avx2",
    "load before": "0.10",
    "load after": "0.20",
}


def line(
    suite: str, tags: dict[str, str], base: str, figures: dict[str, float], **options: Any
) -> Line:
    """Return a line whose medians are a tenth above the fastest trials."""
    trials = {name: Figure(value, 1.1 * value, 2 * value, 5) for name, value in figures.items()}
    return Line(suite, tags, options.pop("unit", "ns/entry"), base, trials, **options)


def dense(size: str, mix: str, figures: dict[str, float], request: str = "shmem") -> Line:
    """Return a dense line with one million entries."""
    tags = {"size": size, "request": request, "mix": mix}
    facts = {"entries": 1e6, "bytes": 8e6}
    limits = {"read-modify-write": 1.0, "memcpy": 1.2}
    return line("dense", tags, "read-modify-write", limits | figures, facts=facts)


def simulated(length: str, tags: dict[str, float] | None = None) -> Line:
    """Return a line of a never-touched mapping."""
    names = {"untouched": 0.05, "untouched, with its address space": 0.09, "all marker": 0.02}
    facts = {"bytes": 28672.0, "tables_modelled": 525315.0, "kernel_tables": 525315.0}
    return line(
        "simulated",
        {"mapping": "never touched", "length": length},
        "untouched",
        names,
        unit="ms",
        facts=facts | (tags or {}),
        missing={"running kernel, uffd-wp": "up to 1 GiB only"},
    )


def whole_run() -> Results:
    """Return a run in which most goals are met."""
    fast = {
        "ptwalk": 1.1,
        "ptwalk, first look": 1.15,
        "ptwalk, 2 threads": 0.6,
        "kernel scalar": 20,
        "kernel avx2": 1.05,
    }
    fast |= {"numba, branch-free": 2.5, "numpy, masks": 30}
    private = {"mapping": "private tables", "length": "1 TiB"}
    facts = {"bytes": 1e6, "tables_modelled": 3.0, "kernel_tables": 3.0}
    memory = {"the kernel's tables": 2.1e6, "ptwalk": 2.11e6}
    return Results(
        dict(RUN),
        [
            line("start", {"what": "import"}, "ptwalk", {"ptwalk": 12, "numba": 80}, unit="ms"),
            line(
                "calls",
                {"range": "16 pages"},
                "empty pybind11 call",
                {
                    "empty pybind11 call": 100,
                    "writeprotect, 16 pages": 280,
                    "writeprotect, 16 pages, keywords": 1000,
                },
                unit="ns/call",
            ),
            simulated("1 GiB", {"vmpte_bytes": 513 * 4096.0}),
            simulated("1 TiB"),
            line(
                "simulated",
                private,
                "all tables dense",
                {"all tables dense": 400, "1 % of tables private": 10},
                unit="ms",
                facts=facts,
            ),
            line(
                "memory", {"mapping": "dense", "length": "64 GiB"}, "the kernel's tables", memory,
                unit="bytes/GiB", facts={"bytes": 1e8},
            ),
            line(
                "walks",
                {"image": "small image", "pages": "262144"},
                "ptwalk translate",
                {"ptwalk translate": 4, "numba": 5, "drgn": 3000, "volatility3": 17000},
                unit="ns/address",
            ),
            line("export", {"size": "DRAM"}, "memcpy", {"memcpy": 0.5, "ptes(out=)": 0.55}),
            line(
                "threads",
                {"size": "L2 of each core", "request": "shmem"},
                "ptwalk",
                {"ptwalk": 1.0, "ptwalk, 2 threads": 0.52},
            ),
            line(
                "fuzz",
                {"profile": "6.18", "setup": "shmem-16", "pages": "16 pages"},
                "loop in C++",
                {
                    "loop in C++": 2000,
                    "run_batch": 2200,
                    "run_batch, 2 threads": 1150,
                    "programs of nothing": 100,
                },
                unit="ns/program",
            ),
            line("restore", {"profile": "6.18"}, "restore", {"restore": 70}, unit="ns"),
            line(
                "libfuzzer",
                {"target": "programs"},
                "plain",
                {"plain": 5000, "ASan and UBSan": 20000},
                unit="ns/execution",
            ),
            *(
                dense(size, mix, fast)
                for size in ("L2", "DRAM")
                for mix in ("all present", "70/15/10/5")
            ),
        ],
    )  # fmt: skip
