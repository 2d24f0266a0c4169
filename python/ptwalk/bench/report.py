"""Reports of a run: text for a terminal, Markdown for a page."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from .goals import Goal, Outcome, outcomes
from .harness import Figure
from .results import Line, Results
from .running import CAVEAT, RUNNING
from .suites import SUITES

_MIB, _KIB = 1 << 20, 1 << 10
_NARROW = 12


class Table(NamedTuple):
    """A header and rows of cells."""

    header: list[str]
    rows: list[list[str]]

    def markdown(self) -> str:
        """Return a Markdown table."""
        rule = ["---"] * len(self.header)
        lines = [self.header, rule, *self.rows]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)

    def text(self) -> str:
        """Return columns for a terminal; those after the first to the right."""
        first, *others = self.header
        wrapped = (textwrap.wrap(name, _NARROW, break_long_words=False) for name in others)
        header = itertools.zip_longest([first], *wrapped, fillvalue="")
        lines = [*map(list, header), *self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        out = []
        for line in lines:
            cells = [cell.rjust(width) for cell, width in zip(line, widths, strict=True)]
            cells[0] = line[0].ljust(widths[0])
            out.append("  ".join(cells).rstrip() + "\n")
        return "".join(out)


def value(number: float, unit: str = "") -> str:
    """Write a number with three digits that matter, and its unit."""
    if unit == "bytes":
        for name, size in (("MiB", _MIB), ("KiB", _KIB)):
            if number >= size:
                return f"{number / size:.3g} {name}"
        return f"{number:.3g} B"
    text = f"{number:,.0f}" if number >= 100 else f"{number:.3g}"  # noqa: PLR2004 -- digits
    return f"{text} {unit}".rstrip()


def goals_table(found: Sequence[Outcome]) -> Table:
    """Return goal | accept | stretch | measured | verdict | worst line."""
    rows = []
    for outcome in found:
        goal, worst = outcome.goal, outcome.worst
        measured = "-" if worst is None else value(worst.value, goal.unit)
        case = "" if worst is None else worst.line.case
        limits = _limit(goal, goal.accept), _limit(goal, goal.stretch)
        rows.append([goal.what, *limits, measured, outcome.verdict, case])
    return Table(["goal", "accept", "stretch", "measured", "verdict", "worst line"], rows)


def _limit(goal: Goal, number: float) -> str:
    return f"{'≤' if goal.at_most else '≥'} {value(number, goal.unit)}"


def line_tables(results: Results, cell: Callable[[Line, str], str]) -> Iterator[tuple[str, Table]]:
    """Yield title and table of every suite: a row for each line, a column for each contender."""
    for name, suite in SUITES.items():
        lines = list(results.of(name))
        if not lines:
            continue
        names = list(dict.fromkeys(n for line in lines for n in (*line.figures, *line.missing)))
        base = lines[0].base
        others = [n for n in names if n != base]
        unit = lines[0].unit
        rows = [
            [line.case, _absolute(line), *(cell(line, other) for other in others)] for line in lines
        ]
        yield suite.TITLE, Table(["case", f"{base}, {unit}", *others], rows)


def _absolute(line: Line) -> str:
    figure = line.figures.get(line.base)
    return value(figure.least) if figure else "-"


def ratio_cell(line: Line, name: str) -> str:
    """Return the ratio of the fastest trials to the base, in brackets that of the medians."""
    least, median = line.ratio(name, line.base), line.ratio(name, line.base, of="median")
    if least is None or median is None:
        return "-"
    return f"{value(least)} ({value(median)})"


def short_cell(line: Line, name: str) -> str:
    """Return the ratio of the fastest trials to the base."""
    least = line.ratio(name, line.base)
    return "-" if least is None else value(least)


def noise(figures: Iterable[Figure]) -> float:
    """Return how far medians lie above the fastest trials, at worst."""
    return max((figure.median / figure.least for figure in figures if figure.least), default=1)


def checks(results: Results) -> Iterator[str]:
    """Yield what else was judged: tables against the kernel's rule, loops against ptwalk."""
    for line in results.of("simulated"):
        modelled, expected = line.facts["tables_modelled"], line.facts["kernel_tables"]
        verdict = "as" if modelled == expected else f"NOT as ({expected:,.0f})"
        text = f"{line.case}: tables_modelled {modelled:,.0f}, {verdict} VmPTE counts them"
        if "vmpte_bytes" in line.facts:
            grown = line.facts["vmpte_bytes"] / 4096
            text += f" (VmPTE of the running kernel grew by {grown:,.0f} tables)"
        yield f"{text}; {value(line.facts['bytes'], 'bytes')} of frames in use"


def missing(results: Results) -> list[str]:
    """Return each reason for which a contender was not measured, once."""
    return list(
        dict.fromkeys(f"{n}: {why}" for line in results.lines for n, why in line.missing.items())
    )


def text(results: Results) -> str:
    """Return everything for a terminal, the goals last."""
    run = results.run
    parts = []
    for title, table in line_tables(results, short_cell):
        parts.append(f"{title}\n{table.text()}")
    parts.append(
        "Numbers are times the first column's, of the fastest trials; - is not measured.\n"
    )
    parts.append("".join(f"{line}\n" for line in (*checks(results), *missing(results))))
    if any(name in line.figures for line in results.lines for name in RUNNING):
        parts.append(f"{CAVEAT}\n")
    found = outcomes(results)
    if any(outcome.worst for outcome in found):
        parts.append(f"Goals\n{goals_table(found).text()}")
    parts.append(
        f"{run['cpu']}, {run['cpus']} CPUs, {run['kernel']}, {run['compiler']}; load "
        f"{run['load before']} before, {run['load after']} after\n"
    )
    return "\n".join(parts)


def markdown(results: Results) -> str:
    """Return tables of ratios, of the fastest trials and in brackets of the medians."""
    return "\n".join(
        f"## {title}\n\n{table.markdown()}" for title, table in line_tables(results, ratio_cell)
    )
