"""How the planted bugs of a mutant build are found: by which judge, when, and by unit tests alone.

``python3 dev.py mutants`` makes such a build and runs this; a normal build has no mutants.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..cli_fuzz import mutants
from ..errors import InvalidArgument

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


def look_for(name: str, options: Sequence[str], tests: Path | None) -> Detection:
    """Run a campaign with a mutant, and the unit tests.

    Raises
    ------
    InvalidArgument
        The campaign ended with an error.
    """
    command = [*_COMMAND, "--mutant", name, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise InvalidArgument(f"{' '.join(command)}: {done.stderr.strip()}")
    killed = None
    if tests:
        environment = {**os.environ, "PTWALK_MUTANT": name}
        quiet = subprocess.run([tests], capture_output=True, check=False, env=environment)
        killed = quiet.returncode != 0
    return detection(name, json.loads(done.stdout), killed)


def table(detections: Sequence[Detection]) -> str:
    """Return detections as a table in Markdown."""
    lines = ["| Mutant | Found after | By | What it said | Unit tests |", "|---|---|---|---|---|"]
    for each in detections:
        after = "not found" if each.seconds is None else f"{each.seconds:.1f} s"
        tests = {None: "not run", True: "fail", False: "pass"}[each.unit_tests]
        lines.append(f"| `{each.name}` | {after} | {each.judge} | {each.title} | {tests} |")
    found = sum(each.seconds is not None for each in detections)
    return "\n".join([*lines, "", f"{found} of {len(detections)} found."])


def main(argv: Sequence[str] | None = None) -> int:
    """Look for every mutant, or the named ones; return 1 if one is not found, 2 without any."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help="mutants (default: all)")
    parser.add_argument("--seconds", default="60", help="for each (default 60)")
    parser.add_argument("--tests", type=Path, help="the program of the C++ unit tests")
    parser.add_argument("--judge", action="append", default=[], help="may be given again")
    args = parser.parse_args(argv)
    names = args.names or mutants()
    if not names:
        print("mutants: this build has none; `python3 dev.py mutants` makes one", file=sys.stderr)
        return 2
    options = ["--seconds", args.seconds, "--workers", "1"]
    options += [word for judge in args.judge for word in ("--judge", judge)]
    detections = []
    for name in names:
        detections.append(look_for(name, options, args.tests))
        print(table(detections[-1:]).splitlines()[2], file=sys.stderr, flush=True)
    print(table(detections))
    return int(any(each.seconds is None for each in detections))


if __name__ == "__main__":
    sys.exit(main())
