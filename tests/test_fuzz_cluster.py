"""Who runs the tasks changes nothing: threads here, or the workers of a Dask cluster."""

from __future__ import annotations

import builtins
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ptwalk import cli
from ptwalk.errors import InvalidArgument
from ptwalk.fuzz.bench import Workbench, work
from ptwalk.fuzz.campaign import Campaign, Spec
from ptwalk.fuzz.cluster import cluster, processes

TASKS = 3
SPEC = Spec("uffd-wp-v2", ("shmem-16",), against="6.18", judges=("invariants", "against"))


def campaign() -> Campaign:
    return Campaign(SPEC, work, Workbench(SPEC, "shmem-16").features)


def found(made: Campaign) -> object:
    return {key: found.finding for key, found in made.findings.items()}, made.corpus.entries


def test_a_dask_cluster_finds_what_threads_find(capsys: pytest.CaptureFixture[str]) -> None:
    distributed: Any = pytest.importorskip("distributed", reason="distributed is not installed")
    with ThreadPoolExecutor(1) as pool:
        here = campaign()
        here.run(pool, workers=1, tasks=TASKS)
    assert here.findings
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50
    ) as local:
        address = local.scheduler_address
        with cluster(address) as (executor, workers):
            assert workers == 2
            there = campaign()
            there.run(executor, workers=workers, tasks=TASKS)
        arguments = ["--profile", "uffd-wp-v2", "--against", "6.18", "--setup", "shmem-16"]
        arguments += ["--judge", "invariants", "--judge", "against", "--tasks", str(TASKS)]
        assert cli.main(["fuzz", *arguments, "--cluster", address, "--json"]) == 1
    assert found(there) == found(here)
    told = json.loads(capsys.readouterr().out)
    assert [each["key"] for each in told["findings"]] == list(here.findings)


def test_no_cluster_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed", reason="distributed is not installed")
    with pytest.raises(InvalidArgument, match="cluster 'nowhere' does not answer"):
        cluster("nowhere").__enter__()


def test_without_distributed_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str, *_: object) -> object:
        raise ImportError(name)

    monkeypatch.setattr("ptwalk.fuzz.cluster.import_module", missing)
    with pytest.raises(InvalidArgument, match=r"pip install ptwalk\[cluster\]"):
        cluster("tcp://127.0.0.1:1").__enter__()


CHILD = """
import os, time
from ptwalk.fuzz.cluster import processes
if __name__ == "__main__":
    with processes(1) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        pool.submit(time.sleep, 60).result()
"""


def test_workers_do_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    process.kill()
    process.communicate()
    for _ in range(1000):
        if not alive(worker):
            return
        time.sleep(0.02)
    pytest.fail("the worker still runs")


def alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def test_a_pool_runs_tasks() -> None:
    with processes(1) as pool:
        assert pool.submit(builtins.sum, [1, 2]).result() == 3
