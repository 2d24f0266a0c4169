#!/usr/bin/env python3
"""atheris drives ptwalk.fuzz.Executor: `python examples/fuzz_atheris.py [CORPUS] [-runs=N]`.

atheris is libFuzzer for Python. It counts branches of Python code; the branches of the modelled
kernel are told to it beside them. Replace the setup and what is asserted by what you want to know.
Needs: pip install ptwalk[atheris]
"""

from __future__ import annotations

import sys

import numpy as np
from ptwalk import fuzz

try:
    import atheris
except ImportError:
    sys.exit("fuzz_atheris.py needs atheris; type: pip install ptwalk[atheris]")

executor = fuzz.Executor("6.18", setup="mixed", raw=False)
counters = [atheris._reserve_counter() for _ in executor.branches]  # as instrumented code does


def test_one_input(data: bytes) -> None:
    """Run one program; what does not hold is an exception, which atheris reports."""
    result = executor.run(data)
    for branch in np.flatnonzero(result.coverage):
        atheris._trace_branch(counters[branch])
    assert not result.violations, f"{result.violations}\n{fuzz.to_text(data)}"


if __name__ == "__main__":
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()
