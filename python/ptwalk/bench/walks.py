"""Walks: translating random addresses of one image, by ptwalk and by other walkers."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from functools import partial

import numpy as np

from .. import workload
from ..machine import trim
from ..workload import Workload
from .harness import U64, Contender, interleave, processors
from .progress import Progress
from .results import Line, not_installed
from .settings import Settings
from .walkers import WALKERS, image

NAME = "walks"
TITLE = "Walks: batches of random addresses"
PTWALK, PTWALK_2 = "ptwalk translate", "ptwalk translate, 2 threads"
_PAGE = 4096
_SHARE = {"Python": 20, "drgn": 50, "volatility3": 500}  # slow ones get one address in so many


def run(settings: Settings, progress: Progress) -> Iterator[Line]:
    """Measure an image of 1 GiB by all walkers, and DRAM-sized tables by the fast ones."""
    length = settings.image_pages * _PAGE
    progress(NAME, f"{settings.image_pages} pages, all walkers")
    yield _walk("small image", length, settings, list(WALKERS))
    trim()
    if settings.slow_in_dram:
        length = settings.large_tables << 21
        progress(NAME, f"{settings.large_tables} tables")
        yield _walk("tables in DRAM", length, settings, ["numba", "numpy"])
        trim()


def _walk(name: str, length: int, settings: Settings, walkers: list[str]) -> Line:
    space = workload.build("present", length=length, seed=1)
    offsets = np.random.default_rng(2).integers(0, length, settings.addresses, dtype=np.uint64)
    addrs = np.uint64(space.start) + offsets
    translate = space.mm.translate
    contenders = [Contender(PTWALK, [partial(translate, addrs, threads=1)], len(addrs))]
    missing = {}
    if processors() > 1:
        contenders.append(Contender(PTWALK_2, [partial(translate, addrs, threads=2)], len(addrs)))
    else:
        missing[PTWALK_2] = "one processor"
    contenders += _others(space, addrs, walkers, missing)
    figures = interleave(contenders, rounds=settings.rounds, seconds=settings.seconds)
    tags = {"image": name, "pages": f"{length // _PAGE:,} pages"}
    facts = {"addresses": float(len(addrs))}
    return Line(NAME, tags, "ns/address", PTWALK, figures, missing, facts)


def _others(
    space: Workload, addrs: U64, walkers: list[str], missing: dict[str, str]
) -> list[Contender]:
    """Return the walkers that are installed and find what translate finds."""
    tables, root = image(space.mm)
    found = []
    for name in walkers:
        package, make = WALKERS[name]
        if package is not None and importlib.util.find_spec(package) is None:
            missing[name] = not_installed(package)
            continue
        walk = make(tables, root)
        few = addrs[: max(len(addrs) // _SHARE.get(name, 1), 1)]
        if np.array_equal(np.array(walk(few), np.uint64), space.mm.translate(few)):
            found.append(Contender(name, [partial(walk, few)], len(few)))
        else:
            missing[name] = "not timed: it finds other addresses than translate"
    return found
