"""Fuzzing: programs in, digests and coverage out.

A *program* is a byte string; every byte string is one (docs/fuzzing.md). An `Executor` runs it from
the state of a *setup* and returns hashes of what came out, the branches that were taken and the
invariants that did not hold.
"""

from .executor import SETUPS, VIOLATIONS, BatchResult, Executor, RunResult, Step
from .minimise import minimise
from .program import (
    FORMAT_VERSION,
    MAX_OPS,
    OP_DTYPE,
    OPERATIONS,
    canonical,
    decode,
    encode,
    standard_mix,
    validate,
)
from .text import from_text, to_text

__all__ = [
    "FORMAT_VERSION",
    "MAX_OPS",
    "OPERATIONS",
    "OP_DTYPE",
    "SETUPS",
    "VIOLATIONS",
    "BatchResult",
    "Executor",
    "RunResult",
    "Step",
    "canonical",
    "decode",
    "encode",
    "from_text",
    "minimise",
    "standard_mix",
    "to_text",
    "validate",
]
