"""The command line: ``ptwalk demo | replay | fuzz | read | explain | bench | profiles | doctor``.

Each command is a few lines on the public names, so that a script can do the same. Errors of
ptwalk are one line on stderr and exit status 2; `replay` exits with 1 on any difference, `fuzz` on
any finding.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from . import __version__, cli_fuzz
from .errors import InvalidArgument, PtwalkError
from .machine import DEFAULT_PROFILE, profiles
from .pagemap import PM_PFRAME_MASK, Pagemap
from .pte import Kind, explain

_CHUNK = 1 << 30  # bytes whose entries `read` decodes at once


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; those of the process when absent.

    Returns
    -------
    int
        Exit status: 0, 1 (`replay` or `fuzz` found something), 2 (an error, said on stderr) or
        130 (interrupted).
    """
    args = _parser().parse_args(argv)
    try:
        status: int = args.run(args)
        sys.stdout.flush()
    except PtwalkError as e:
        print(f"ptwalk: {e}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ptwalk: interrupted", file=sys.stderr)
        return cli_fuzz.INTERRUPTED
    except BrokenPipeError:  # as in `ptwalk demo | head`; nothing more can be written
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ptwalk", description="The Linux page table as a library")
    parser.add_argument("--version", action="version", version=f"ptwalk {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="this process, and the seed's story on three kernels")
    demo.set_defaults(run=_demo)

    replay = commands.add_parser("replay", help="run recorded programs and compare every step")
    replay.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a .jsonl.gz trace")
    replay.add_argument("--json", action="store_true", help="one JSON document instead of text")
    replay.set_defaults(run=_replay)

    cli_fuzz.add_parser(commands)

    read = commands.add_parser("read", help="the VMAs of a process and their entries by kind")
    read.add_argument("pid", metavar="PID", help='a process, or "self"')
    read.set_defaults(run=_read)

    explain = commands.add_parser("explain", help="what a page-table entry says")
    explain.add_argument("word", metavar="WORD", help="the raw entry, as 0x8000000000000067")
    explain.add_argument("--profile", required=True, help='the kernel; "ptwalk profiles" has them')
    explain.add_argument("--level", default="pte", help="pte (default), pmd, pud, p4d or pgd")
    explain.set_defaults(run=_explain)

    bench = commands.add_parser("bench", help="measure it against the machine's limit and others")
    bench.add_argument("suites", nargs="*", metavar="SUITE", help="what to measure; all if none")
    bench.add_argument("--quick", action="store_true", help="less of everything, in a minute")
    bench.add_argument(
        "--from", dest="source", type=Path, metavar="FILE", help="measure nothing, read results"
    )
    for option, metavar, text in (
        ("--json", "FILE", "write the results"),
        ("--markdown", "FILE", "write tables of ratios"),
        ("--document", "FILE", "write the page docs/performance.md"),
        ("--plots", "DIR", "write pictures (pip install ptwalk[plot])"),
    ):
        bench.add_argument(option, type=Path, metavar=metavar, help=text)
    bench.set_defaults(run=_bench)

    profiles = commands.add_parser("profiles", help="the kernels that are modelled")
    profiles.set_defaults(run=_profiles)

    doctor = commands.add_parser("doctor", help="versions, and what the running kernel allows")
    doctor.set_defaults(run=_doctor)
    return parser


def _integer(text: str, name: str, base: int = 10) -> int:
    try:
        return int(text, base)
    except ValueError:
        hint = "write it as 0x8000000000000067" if base == 0 else "give a process id"
        raise InvalidArgument(f"{name} {text!r} is not a number; {hint}") from None


def _demo(_args: argparse.Namespace) -> int:
    from .demo import demo

    demo()
    return 0


def _replay(args: argparse.Namespace) -> int:
    from . import replay

    return replay.run_cli(args.files, args.json)


def _read(args: argparse.Namespace) -> int:
    from . import live

    pid = os.getpid() if args.pid == "self" else _integer(args.pid, "PID")
    mm, report = live.read(pid)
    print(report)
    counts = [(vma, mm.count(vma.start, vma.length)) for vma in mm.vmas]
    width = max((len(str(vma)) for vma, _ in counts), default=0)
    present, writable = 0, 0
    for vma, count in counts:
        print(f"{vma!s:{width}}  {count}")
        for start in range(vma.start, vma.end, _CHUNK) if "present" in count else ():
            length = min(vma.end - start, _CHUNK)
            if "present" in mm.count(start, length):
                entries = mm.decode(mm.ptes(start, length))
                here = entries["kind"] == Kind.PRESENT
                present += int(np.count_nonzero(here))
                writable += int(np.count_nonzero(here & entries["write"]))
    if present:
        print(f"{writable / present:.0%} of the present entries are writable")
    return 0


def _explain(args: argparse.Namespace) -> int:
    print(explain(_integer(args.word, "WORD", 0), profile=args.profile, level=args.level))
    return 0


def _bench(args: argparse.Namespace) -> int:
    from .bench.command import Wishes, bench

    wishes = Wishes(args.json, args.markdown, args.document, args.plots)
    bench(args.suites, args.source, wishes, quick=args.quick)
    return 0


def _profiles(_args: argparse.Namespace) -> int:
    print("  ".join(f"{n} (default)" if n == DEFAULT_PROFILE else n for n in profiles()))
    return 0


def _doctor(_args: argparse.Namespace) -> int:
    from . import running_kernel

    refused = running_kernel.available()
    rows = {
        "ptwalk": __version__,
        "Python": f"{platform.python_version()} {sys.executable}",
        "numpy": np.__version__,
        "profiles": ", ".join(profiles()),
        "running kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "pagemap": _pagemap_state(),
        "userfaultfd": "works" if refused is None else f"no: {refused}",
    }
    width = max(map(len, rows))
    for name, text in rows.items():
        print(f"{name:{width}}  {text}")
    return 0


def _pagemap_state() -> str:
    """Say whether this process can read its pagemap, and what it shows."""
    page = np.ones(512, dtype=np.uint64)  # touched, so that there is a frame to see
    try:
        with Pagemap.open() as pagemap:
            word = int(pagemap.words(page.ctypes.data & ~0xFFF, 4096)[0])
    except OSError as e:
        return f"no: {e.strerror}; /proc must be mounted and this process dumpable"
    return "works" if word & PM_PFRAME_MASK else "works; pfns hidden without CAP_SYS_ADMIN"
