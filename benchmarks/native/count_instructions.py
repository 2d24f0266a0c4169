#!/usr/bin/env python3
"""Instructions of each leaf kernel for one entry, counted by callgrind: they know no noise.

`python3 dev.py instructions` builds the program and calls this. What putting the entries back
takes is measured by itself and subtracted. An instruction of a vector kernel does the work of
several, so compare a kernel with itself, before and after a change.
"""

from __future__ import annotations

import re
import subprocess
import sys

MIXES = ("present", "none", "marker", "70/15/10/5", "25/25/25/25", "sparse")
REQUESTS = ("shmem", "anon")
ENTRIES = 16 * 512  # of a pass, as in count_instructions.cpp
PASSES = 50


def instructions(program: str, kernel: str, request: str, mix: str) -> int:
    """Run the program under callgrind and return what it counted."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", program]
    done = subprocess.run(
        [*command, kernel, request, mix, str(PASSES)], capture_output=True, text=True, check=False
    )
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or not found:
        sys.exit(f"count_instructions.py: {' '.join(command)} failed:\n{done.stderr}")
    return int(found[1])


def main(program: str, kernels: list[str]) -> None:
    """Print a Markdown table, protect and resolve together divided by two."""
    print(f"| request | mix | {' | '.join(kernels)} |\n|{'---|' * (2 + len(kernels))}")
    for request in REQUESTS:
        for mix in MIXES:
            idle = instructions(program, "none", request, mix)
            counts = [instructions(program, kernel, request, mix) - idle for kernel in kernels]
            cells = [f"{count / (2 * PASSES * ENTRIES):.2f}" for count in counts]
            print(f"| {request} | {mix} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
