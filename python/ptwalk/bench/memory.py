"""Memory: by how much the anonymous memory of a process grows for each simulated GiB."""

from __future__ import annotations

from collections.abc import Iterator

from .. import workload
from .harness import Figure
from .progress import Progress
from .results import Line, in_child
from .settings import GIB, TIB, Settings
from .simulated import size_name

NAME = "memory"
TITLE = "Memory for each simulated GiB"
PTWALK, KERNEL = "ptwalk", "the kernel's tables"
_PROGRAM = """
import json, sys
from ptwalk import trim, workload

def rss():
    with open("/proc/self/status", encoding="ascii") as status:
        return sum(int(line.split()[1]) << 10 for line in status if line.startswith("RssAnon"))

def weigh(mix, length):
    before = rss()
    space = workload.build(mix, length=length)
    space.uffd.writeprotect(space.start, space.length)
    protected = rss()
    space.uffd.writeprotect(space.start, space.length, protect=False)
    return max(protected, rss()) - before

weigh(sys.argv[1], min(int(sys.argv[2]), 1 << 30))  # what the first call of anything costs
trim()
print(weigh(sys.argv[1], int(sys.argv[2])))
"""


def run(settings: Settings, progress: Progress) -> Iterator[Line]:
    """Protect and resolve dense tables and nothing, each in a few new processes."""
    dense, untouched = settings.memory
    for mix, length in (("present", dense), ("untouched", untouched), ("untouched", TIB)):
        tags = {"mapping": "dense" if mix == "present" else mix, "length": size_name(length)}
        progress(NAME, " ".join(tags.values()))
        grown = [in_child(_PROGRAM, mix, str(length)) for _ in range(settings.children)]
        modelled = workload.build("untouched", length=length)
        tables = modelled.uffd.writeprotect(modelled.start, length).tables_allocated
        figures = {
            PTWALK: Figure.of([nr / (length / GIB) for nr in grown]),
            KERNEL: Figure.of([tables * 4096 / (length / GIB)]),
        }
        facts = {"bytes": float(min(grown)), "gib": length / GIB}
        yield Line(NAME, tags, "bytes/GiB", KERNEL, figures, {}, facts)
