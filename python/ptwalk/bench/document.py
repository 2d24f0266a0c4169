"""The page docs/performance.md, written from results: no number in it comes from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from .goals import Outcome, outcomes
from .report import Table, checks, goals_table, markdown, missing, noise
from .results import Results
from .running import CAVEAT

COMMAND = (
    "python3 dev.py bench --json benchmarks/results/performance.json --document docs/performance.md"
)
_BUSY = 1.5  # medians so far above the fastest trials speak of other work on the machine

_TOP = """\
# Performance

Written by one command, which measures for some minutes; edit nothing here:

```sh
{command}
```

`ptwalk bench --from FILE --document FILE` writes it again from old results; `ptwalk bench --quick`
prints as much in a minute. Only ratios mean anything, and only within one run: absolute times are
those of one machine on one day.

## Goals

Where several lines speak for a goal, the worst is shown. Ratios are of fastest trials. "Met" is the
line to accept, "stretch" the one hoped for.

"""

_METHOD = """\
## How it is measured

- Contenders take turns, trial by trial, each round beginning with another one, after 200 ms that
  keep the processor busy. Figures are fastest trials, in brackets medians; the results file has the
  slowest too, and the number of trials.
- Where everything fits into the L2 cache, each trial is made twice and the second is timed.
- *Dense tables* have an entry for every page, in the L2 cache or in DRAM. Before a trial the same
  entries are put back, in tables of their own, not timed; then one wr-protect and one resolve are
  timed, and a figure is their mean. *ptwalk* is the public call from Python,
  `Userfaultfd.writeprotect`, on tables that an earlier request has seen: what it saw is kept until
  somebody stores, as when memory is protected again and again. *ptwalk, first look* is the same
  call on tables that nobody has seen since their entries were stored. *kernel …* is one leaf kernel
  on an array of the same entries, at first sight too.
- *read-modify-write* is the limit: and, or and store of the same bytes in place, with AVX2 where
  there is AVX2. *memcpy* copies them. *kernel scalar* is the branchy loop, shaped as the kernel's.
- *numba*, *numpy* and *Python* do the same to present, none, swap and marker entries, and ask for
  AnonExclusive where the request does; that was checked on the same entries before they were
  timed. They do not look for migration, device or poisoned entries, PROT_NONE, NUMA hints, bad page
  maps or TLB flushes, as ptwalk does in the same time. Compiling is not timed.
- *Walkers* translate the same random addresses in one image, and were compared with `translate`
  first. drgn walks by the C function beneath its helper `follow_phys`, volatility3 by its layer's
  inner `_translate`. What is slow gets fewer addresses.
- *Memory* is the growth of RssAnon in a new process, which includes the rest of a huge page.
  *Import* is timed in new processes that have numpy already.
- `python3 dev.py instructions` counts the instructions of each kernel by callgrind, which no other
  work on the machine disturbs.
- {caveat}
"""


def document(results: Results) -> str:
    """Return the page for a run.

    Parameters
    ----------
    results : Results
        Of all suites; what is missing is left out or said to be not measured.

    Returns
    -------
    str
        Markdown.
    """
    parts = [
        _TOP.format(command=COMMAND),
        _goals(outcomes(results)),
        "\n## The run\n\n",
        Table(["what", "is"], [[name, fact] for name, fact in results.run.items()]).markdown(),
        _noise(results),
        "\n",
        _METHOD.format(caveat=CAVEAT),
        "\n## Tables\n\nThe first column of figures is absolute, the others are ratios to it; ",
        "`-` was not measured.\n\n",
        markdown(results).replace("## ", "### "),
        "\n",
        *(f"- {check}\n" for check in checks(results)),
    ]
    if left_out := missing(results):
        parts += ["\nNot measured:\n\n", *(f"- {reason}\n" for reason in left_out)]
    return "".join(parts)


def _goals(found: Sequence[Outcome]) -> str:
    """Return the goals with a column that explains what was missed."""
    table = goals_table(found)
    rows = [[*row, outcome.why] for row, outcome in zip(table.rows, found, strict=True)]
    return Table([*table.header, "why missed"], rows).markdown()


def _noise(results: Results) -> str:
    """Say how far the trials lie apart: how much the figures are worth."""
    worst = sorted(noise(line.figures.values()) for line in results.lines)
    if not worst:
        return ""
    middle = worst[len(worst) // 2]
    text = (
        f"\nWithin a line, medians lie up to {middle:.2f} times above the fastest trials (in the "
        f"middle one of {len(worst)} lines; {worst[-1]:.2f} in the worst)."
    )
    if middle > _BUSY:
        text += " The machine had other work to do: **these figures are not to be relied on**."
    return f"{text}\n"
