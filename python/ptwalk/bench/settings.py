"""How much a run measures: `DEFAULT` takes minutes, `QUICK` less than one."""

from __future__ import annotations

from dataclasses import dataclass

GIB, TIB = 1 << 30, 1 << 40


@dataclass(frozen=True, slots=True)
class Settings:
    """Sizes and repetitions.

    Attributes
    ----------
    name : str
        What the results file says.
    small_tables, large_tables : int
        PTE tables (4 KiB, 2 MiB of addresses each) that lie in the L2 cache, and in DRAM.
    small_rounds, rounds : int
        Trials of each contender on small tables, and elsewhere.
    seconds : float
        Time after which a contender makes no more than three trials.
    large_mixes : tuple of str or None
        Mixes measured in DRAM; None for all.
    slow_in_dram : bool
        Whether numpy and branchy numba are measured there too.
    simulated : tuple of int
        Lengths of never-touched mappings in bytes.
    dense : int
        Length of the mapping of which all tables, or 1 %, are private.
    image_pages, addresses : int
        Pages of the image that walkers translate in, and addresses for the fast ones.
    calls : int
        Calls in one trial of a call's cost: few, so that a trial is rarely interrupted.
    starts : int
        Trials of an import.
    children : int
        Processes in which memory is weighed.
    memory : tuple of int
        Lengths of the dense and of the untouched mapping that are weighed.
    programs : int
        Programs in one trial of the fuzzing backend.
    executions : int
        Executions of each libFuzzer target.
    """

    name: str
    small_tables: int = 64
    large_tables: int = 65536
    small_rounds: int = 200
    rounds: int = 7
    seconds: float = 6.0
    large_mixes: tuple[str, ...] | None = None
    slow_in_dram: bool = True
    simulated: tuple[int, ...] = (GIB, 32 * GIB, TIB, 16 * TIB, 64 * TIB)
    dense: int = TIB
    image_pages: int = 1 << 18
    addresses: int = 1 << 20
    calls: int = 500
    starts: int = 9
    children: int = 3
    memory: tuple[int, int] = (256 * GIB, 64 * TIB)
    programs: int = 20_000
    executions: int = 200_000


DEFAULT = Settings("default")
QUICK = Settings(
    "quick",
    large_tables=16384,
    small_rounds=20,
    rounds=3,
    seconds=0.3,
    large_mixes=("present", "70/15/10/5"),
    slow_in_dram=False,
    simulated=(GIB, TIB, 64 * TIB),
    dense=128 * GIB,
    starts=3,
    children=1,
    programs=5_000,
    executions=3_000,
)
