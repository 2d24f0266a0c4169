"""Export: the entries of a range as a numpy array, against a copy of as many bytes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from .. import _core, workload
from ..machine import trim
from .dense import TABLE
from .harness import Contender, aligned, interleave, processors
from .progress import Progress
from .results import Line
from .settings import Settings

NAME = "export"
TITLE = "Export of entries"
COPY, OUT, NEW = "memcpy", "ptes(out=)", "ptes()"
OUT_2 = "ptes(out=), 2 threads"


def run(settings: Settings, progress: Progress) -> Iterator[Line]:
    """Measure small and large tables."""
    for size, tables in (("L2", settings.small_tables), ("DRAM", settings.large_tables)):
        progress(NAME, size)
        space = workload.build("70/15/10/5", length=tables * TABLE)
        ptes, start, length = space.mm.ptes, space.start, space.length
        words, out = ptes(start, length), aligned(tables * 512)
        contenders = [
            Contender(COPY, [partial(_core.copy_words, out, words, 1)], len(out)),
            Contender(OUT, [partial(ptes, start, length, out=out, threads=1)], len(out)),
            Contender(NEW, [partial(ptes, start, length, threads=1)], len(out)),
        ]
        missing = {}
        if processors() > 1:
            two = partial(ptes, start, length, out=out, threads=2)
            contenders.append(Contender(OUT_2, [two], len(out)))
        else:
            missing[OUT_2] = "one processor"
        small = size == "L2"
        figures = interleave(
            contenders,
            rounds=settings.small_rounds if small else settings.rounds,
            seconds=settings.seconds,
            settle=small,
        )
        if not np.array_equal(out, words):
            raise AssertionError("ptes(out=) and ptes() differ")
        facts = {"bytes": float(out.nbytes)}
        yield Line(NAME, {"size": size}, "ns/entry", COPY, figures, missing, facts)
        del space, ptes, contenders
        trim()
