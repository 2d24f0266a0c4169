"""Hypothesis strategies and a stateful machine, for tests of what is built on ptwalk.

`programs`, `operations`, `entries`, `ranges` and `address_spaces` draw inputs; a test that
subclasses `AddressSpaceMachine` adds rules and invariants of its own to those of an address space.
Needs the extra: ``pip install ptwalk[fuzz]``.
"""

try:
    import hypothesis as _hypothesis  # noqa: F401
except ImportError as _error:
    raise ImportError(
        "ptwalk.testing needs hypothesis; type: pip install ptwalk[fuzz]", name="hypothesis"
    ) from _error

from .machine import AddressSpaceMachine
from .strategies import Program, address_spaces, entries, operations, programs, ranges

__all__ = [
    "AddressSpaceMachine",
    "Program",
    "address_spaces",
    "entries",
    "operations",
    "programs",
    "ranges",
]
