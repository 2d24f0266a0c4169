"""``ptwalk fuzz``: programs against a profile's invariants, or against another profile.

Exit status 0: nothing found; 1: findings; 2: an error; 130: interrupted, findings so far are told.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from . import __version__, _core
from .errors import InvalidArgument, PtwalkError

if TYPE_CHECKING:
    from .fuzz.campaign import Campaign, Spec

_JUDGES = ("invariants", "kernels", "model")
_SECONDS = 60.0
INTERRUPTED = 130  # exit status after Ctrl-C, as shells have it


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to those of ``ptwalk``."""
    fuzz = commands.add_parser("fuzz", help="look for programs that break a kernel's rules")
    fuzz.add_argument("--profile", default="6.18", help="the kernel (default 6.18)")
    fuzz.add_argument("--against", default="", metavar="PROFILE", help="compare with another one")
    fuzz.add_argument("--mutant", default="", metavar="NAME", help="run with a planted bug")
    fuzz.add_argument("--setup", action="append", help="what programs start from (default: all)")
    fuzz.add_argument("--judge", action="append", metavar="NAME", help="may be given again")
    fuzz.add_argument("--seconds", type=float, help=f"how long (default {_SECONDS:.0f})")
    fuzz.add_argument("--tasks", type=int, help="tasks of the campaign in all, instead of seconds")
    fuzz.add_argument("--first", action="store_true", help="stop at the first finding")
    fuzz.add_argument("--workers", type=int, help="processes (default: one for each processor)")
    fuzz.add_argument("--cluster", metavar="ADDRESS", help="a Dask scheduler, tcp://host:8786")
    fuzz.add_argument("--corpus", type=Path, metavar="DIR", help="keep results there, or resume")
    fuzz.add_argument("--seeds", type=Path, metavar="DIR", help="programs of another fuzzer")
    fuzz.add_argument("--seed", type=int, default=1, help="where all choices come from (default 1)")
    fuzz.add_argument("--json", action="store_true", help="one JSON document instead of text")
    fuzz.add_argument("--report", type=Path, metavar="DIR", help="say what a corpus reached")
    fuzz.set_defaults(run=_fuzz)


def _fuzz(args: argparse.Namespace) -> int:
    from .fuzz import report

    try:
        if args.report:
            reached = report.coverage_of(args.report)
            print(json.dumps(reached, indent=1) if args.json else report.coverage_report(reached))
            return 0
        with _one_interrupt():
            return _campaign(args)
    except OSError as e:
        if isinstance(e, PtwalkError | BrokenPipeError):
            raise
        where = e.filename or args.report or args.corpus
        raise InvalidArgument(
            f"{where}: {e.strerror}; give a directory where files can be read and written"
        ) from None


@contextmanager
def _one_interrupt() -> Iterator[None]:
    """Let Ctrl-C end the block once; the ending itself is not interrupted."""

    def end(*_: object) -> None:
        signal.signal(signal.SIGINT, lambda *_: None)
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    mine = threading.current_thread() is threading.main_thread()
    if not mine or before is not signal.default_int_handler:
        yield  # somebody else's
        return
    signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _campaign(args: argparse.Namespace) -> int:
    """Run a campaign and tell what it came to."""
    from .fuzz import report
    from .fuzz.progress import progress

    campaign, branches = campaign_of(args)
    seconds = args.seconds or (None if args.tasks else _SECONDS)
    interrupted = False
    try:
        with _pool(args) as (pool, workers), progress(branches) as tell:
            campaign.run(
                pool,
                workers=workers,
                tasks=args.tasks,
                seconds=seconds,
                first=args.first,
                progress=tell,
            )
    except KeyboardInterrupt:
        interrupted = True
    finally:
        campaign.finish()
    if args.json:
        print(json.dumps(report.document(campaign, branches), indent=1))
    else:
        tell_end(campaign, branches, args.corpus)
    if interrupted:
        print("ptwalk: interrupted", file=sys.stderr)
        return INTERRUPTED
    return 1 if campaign.findings else 0


def tell_end(campaign: Campaign, branches: int, directory: Path | None) -> None:
    """Print what a campaign came to, in words, and which judges a worker could not ask."""
    from .fuzz import progress, report

    if campaign.findings:
        print(report.told(campaign.findings.values()))
    where = f" in {directory / 'findings'}, each with a Python script" if directory else ""
    nr = len(campaign.findings)
    print(progress.line(campaign.state(), branches))
    for what, batches in campaign.counts.items():
        if " skipped: " in what:
            print(f"{what} ({batches} batches)")
    print(f"{nr} finding{'' if nr == 1 else 's'}{where}" if nr else "nothing found")


def spec_of(args: argparse.Namespace) -> Spec:
    """Return the campaign that the arguments describe.

    Raises
    ------
    InvalidArgument
        For numbers out of range and an unknown mutant.
    """
    from .fuzz import SETUPS
    from .fuzz.campaign import Spec

    for name in ("tasks", "workers", "seconds"):
        value = getattr(args, name)
        if value is not None and not 0 < value < math.inf:  # nan is neither
            raise InvalidArgument(
                f"--{name} {value:g} is not positive and finite; give one that is, or leave it out"
            )
    if args.seed < 0:
        raise InvalidArgument(f"--seed {args.seed} is negative; give 0 or more")
    known = mutants()
    if args.mutant and args.mutant not in known:
        none = "this build has none; `python3 dev.py mutants` or -DPTWALK_MUTANTS=ON makes them"
        remedy = f"use one of {', '.join(known)}" if known else none
        raise InvalidArgument(f"mutant {args.mutant!r} is not known; {remedy}")
    judges = args.judge or ((*_JUDGES, "against") if args.against else _JUDGES)
    setups = args.setup or SETUPS
    return Spec(args.profile, tuple(setups), args.against, args.mutant, tuple(judges), args.seed)


def mutants() -> tuple[str, ...]:
    """Return the names of the planted bugs of this build; none in a normal one."""
    return tuple(name for name, _ in _core.mutants())


@contextmanager
def _pool(args: argparse.Namespace) -> Iterator[tuple[Executor, int]]:
    from .fuzz.cluster import cluster, processes

    if args.cluster:
        with cluster(args.cluster) as found:
            yield found
    else:
        workers = args.workers or len(os.sched_getaffinity(0))
        with processes(workers) as pool:
            yield pool, workers


def campaign_of(args: argparse.Namespace) -> tuple[Campaign, int]:
    """Return the campaign that the arguments describe, and how many branches there are.

    Judges that cannot be asked are left out, and told on stderr.

    Raises
    ------
    InvalidArgument
        For what does not exist, for a judge that is asked for and cannot be asked, and for a
        directory that holds another campaign.
    """
    from .fuzz.bench import Workbench, work
    from .fuzz.campaign import Campaign
    from .fuzz.corpus import read_programs
    from .fuzz.report import files_of

    spec = spec_of(args)
    bench, *_ = (Workbench(spec, setup) for setup in spec.setups)
    for judge in bench.judges:
        if not (skipped := getattr(judge, "skipped", None)):
            continue
        if args.judge:
            raise InvalidArgument(f"judge {judge.name!r} cannot be asked: {skipped}")
        print(f"ptwalk: judge {judge.name!r} is left out: {skipped}", file=sys.stderr)
        spec = replace(spec, judges=tuple(name for name in spec.judges if name != judge.name))
    campaign = Campaign(
        spec,
        work,
        bench.features,
        directory=args.corpus,
        files=files_of,
        seeds=read_programs(args.seeds) if args.seeds else (),
        format_=f"{__version__} {bench.fingerprint}",
    )
    return campaign, len(bench.branches)
