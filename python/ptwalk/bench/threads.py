"""Two threads on tables that fill the L2 caches of two cores; `dense` has them in DRAM.

Nothing is put back between trials: entries go back and forth, each table in the cache of the core
that had it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from .. import workload
from ..machine import trim
from .dense import LIMIT, LIMIT_2, PTWALK, PTWALK_2, REQUESTS, TABLE, both, read_modify_write
from .harness import Contender, aligned, interleave, processors
from .progress import Progress
from .results import Line
from .settings import Settings

NAME = "threads"
TITLE = "Two threads: protect and resolve, 70/15/10/5"


def run(settings: Settings, progress: Progress) -> Iterator[Line]:
    """Measure both requests with one thread and two."""
    tables = 4 * settings.small_tables  # ptwalk uses threads from 256 on
    words = aligned(tables * 512)
    work = 2 * len(words)
    for request in REQUESTS:
        progress(NAME, request.name)
        tags = {"size": "L2 of each core", "request": request.name}
        if processors() == 1:
            yield Line(NAME, tags, "ns/entry", PTWALK, {}, {PTWALK_2: "one processor"})
            continue
        space = workload.build(
            "70/15/10/5", length=tables * TABLE, profile=request.profile, backing=request.backing
        )
        contenders = [
            Contender(PTWALK, both(space, 1), work),
            Contender(PTWALK_2, both(space, 2), work),
            Contender(LIMIT, [partial(read_modify_write, words, 1)], work),
            Contender(LIMIT_2, [partial(read_modify_write, words, 2)], work),
        ]
        figures = interleave(
            contenders, rounds=settings.small_rounds, seconds=settings.seconds, settle=True
        )
        del space, contenders
        trim()
        yield Line(NAME, tags, "ns/entry", PTWALK, figures, {}, {"bytes": float(words.nbytes)})
