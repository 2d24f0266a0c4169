"""How the planted bugs of a mutant build are found: by which judge, when, and by unit tests alone.

``python3 dev.py mutants`` makes such a build and runs this; a normal build has no mutants.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..cli_fuzz import mutants
from ..errors import InvalidArgument

_GRACE = 60  # seconds after which a campaign that is due hangs in a program, as a kernel would
_TESTS = 300  # seconds for the unit tests
_COMMAND = (sys.executable, "-m", "ptwalk", "fuzz", "--first", "--json")


@dataclass(frozen=True, slots=True)
class Detection:
    """How a mutant was found.

    Attributes
    ----------
    name : str
        The mutant.
    seconds : float or None
        After which a campaign found it; None if it did not.
    judge, title : str
        What found it.
    unit_tests : bool or None
        Whether the C++ unit tests fail with it; None where they were not run.
    """

    name: str
    seconds: float | None = None
    judge: str = ""
    title: str = ""
    unit_tests: bool | None = None


def detection(name: str, document: dict[str, Any], unit_tests: bool | None) -> Detection:
    """Return how a campaign, told as JSON, found a mutant."""
    findings = sorted(document["findings"], key=lambda finding: float(finding["seconds"]))
    if not findings:
        return Detection(name, unit_tests=unit_tests)
    first = findings[0]
    return Detection(name, first["seconds"], first["judge"], first["title"], unit_tests)


def look_for(
    name: str, seconds: float, options: Sequence[str] = (), tests: Path | None = None
) -> Detection:
    """Run a campaign with a mutant, and the unit tests.

    Raises
    ------
    InvalidArgument
        The campaign ended with an error.
    """
    killed = _fails(tests, name) if tests else None
    command = [*_COMMAND, "--mutant", name, "--seconds", f"{seconds:g}", *options]
    limit = seconds + _GRACE
    done = _run(command, limit)
    if done is None:
        said = f"nothing: it had to be killed after {limit:g} s"
        return Detection(name, title=said, unit_tests=killed)
    status, told, said = done
    if status not in (0, 1):
        raise InvalidArgument(f"{' '.join(command)}: {said.strip()}")
    return detection(name, json.loads(told), killed)


def _run(
    command: Sequence[str], limit: float, environment: dict[str, str] | None = None
) -> tuple[int, str, str] | None:
    """Return status, stdout and stderr of a command; None if it had to be killed."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    try:
        told, said = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return None
    return process.returncode, told, said


def _fails(tests: Path, name: str) -> bool:
    """Tell whether the unit tests fail with a mutant, or do not end."""
    command = [str(tests), "--abort-after=1"]
    done = _run(command, _TESTS, {**os.environ, "PTWALK_MUTANT": name})
    return done is None or done[0] != 0


def table(detections: Sequence[Detection]) -> str:
    """Return detections as a table in Markdown."""
    lines = ["| Mutant | Found after | By | What it said | Unit tests |", "|---|---|---|---|---|"]
    for each in detections:
        after = "not found" if each.seconds is None else f"{each.seconds:.1f} s"
        tests = {None: "not run", True: "fail", False: "pass"}[each.unit_tests]
        lines.append(f"| `{each.name}` | {after} | {each.judge} | {each.title} | {tests} |")
    found = sum(each.seconds is not None for each in detections)
    return "\n".join([*lines, "", f"{found} of {len(detections)} found."])


_DOCUMENT = """# Planted bugs

What finds the bugs that a build with mutants has, each one wrong line of the rules. Made by

    {command}

A campaign (campaigns are in fuzzing_campaigns.md) has up to {seconds:g} s on one core for each,
on the profile 6.18, with the judges and setups that it takes by default; it ends with the first
finding. *Unit tests* tells whether the C++ unit tests fail with the bug, which is all that they
are asked: no test knows of mutants.

{table}
"""


def document(detections: Sequence[Detection], seconds: float, seed: int) -> str:
    """Return a page of documentation: how it was made, and the table."""
    options = f"--seconds {seconds:g} --seed {seed} --document docs/mutants.md"
    command = f"python3 dev.py mutants {options}"
    return _DOCUMENT.format(command=command, seconds=seconds, table=table(detections))


def main(argv: Sequence[str] | None = None) -> int:
    """Look for every mutant, or the named ones; return 1 if one is not found, 2 if none can be."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help="mutants (default: all)")
    parser.add_argument("--seconds", type=float, default=60, help="for each (default 60)")
    parser.add_argument("--seed", type=int, default=1, help="of the campaigns (default 1)")
    parser.add_argument("--tests", type=Path, help="the program of the C++ unit tests")
    parser.add_argument("--judge", action="append", default=[], help="may be given again")
    parser.add_argument("--document", type=Path, help="write the report there, as Markdown")
    args = parser.parse_args(argv)
    names = args.names or mutants()
    if not names:
        print("mutants: this build has none; `python3 dev.py mutants` makes one", file=sys.stderr)
        return 2
    options = ["--seed", str(args.seed), "--workers", "1"]
    options += [word for judge in args.judge for word in ("--judge", judge)]
    if args.tests and _fails(args.tests, ""):
        print(f"mutants: {args.tests} fails without any mutant", file=sys.stderr)
        return 2
    detections = []
    for name in names:
        detections.append(look_for(name, args.seconds, options, args.tests))
        print(table(detections[-1:]).splitlines()[2], file=sys.stderr, flush=True)
    print(table(detections))
    if args.document:
        args.document.write_text(document(detections, args.seconds, args.seed))
    return int(any(each.seconds is None for each in detections))


if __name__ == "__main__":
    sys.exit(main())
