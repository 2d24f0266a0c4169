"""Many ranges in one call: what `mprotect_many` and `writeprotect_many` take.

The kernel has no such calls: each stands for one system call a range, made in order.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .errors import InvalidArgument

if TYPE_CHECKING:
    import numpy.typing as npt

    from ._core import ProtectResult

_PAIR = 2  # start and length


class RangesDone(NamedTuple):
    """How far a call on many ranges got: the `done` of its error.

    Attributes
    ----------
    ranges : int
        Ranges whose calls succeeded; also the index of the one that failed.
    result : ProtectResult
        The sum of their results, and of what the failed call changed.
    """

    ranges: int
    result: ProtectResult


def packed(ranges: Iterable[tuple[int, int]] | npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
    """Return ranges as a packed array of uint64, shape (n, 2); refuse what would lose bits."""
    if not isinstance(ranges, np.ndarray):
        try:
            pairs = [(operator.index(start), operator.index(length)) for start, length in ranges]
            return np.array(pairs, np.uint64).reshape(-1, _PAIR)
        except (OverflowError, TypeError, ValueError) as error:
            raise InvalidArgument(
                f"ranges holds no ranges ({error}); pass pairs of start and length in bytes, ints "
                "from 0 to 2**64 - 1"
            ) from None
    if (
        ranges.ndim != _PAIR
        or ranges.shape[1] != _PAIR
        or ranges.dtype.kind not in "iu"
        or (ranges < 0).any()
    ):
        raise InvalidArgument(
            f"ranges has dtype {ranges.dtype} and shape {ranges.shape}; pass integers from 0 to "
            "2**64 - 1 with shape (n, 2): start and length in bytes"
        )
    return np.ascontiguousarray(ranges, np.uint64)
