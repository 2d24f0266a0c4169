"""Pictures of a run, which show what limits each line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import InvalidArgument
from . import dense, export, fuzzing, memory, running, simulated, threads, walks
from .report import value
from .results import Line, Results
from .settings import GIB, TIB

# Okabe and Ito's colours, which colour-blind readers can tell apart.
_BLACK, _ORANGE, _SKY, _GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
_BLUE, _RED, _PINK, _GREY = "#0072B2", "#D55E00", "#CC79A7", "#999999"
_YELLOW = "#F0E442"
_DPI = 150
_DECADES = 1000


def pyplot() -> Any:
    """Return matplotlib.pyplot, drawing into files.

    Raises
    ------
    InvalidArgument
        matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise InvalidArgument(
            "matplotlib is not installed, so there are no pictures; pip install ptwalk[plot]"
        ) from None
    matplotlib.use("Agg")
    from matplotlib import pyplot as found

    return found


def plot(results: Results, directory: Path) -> list[Path]:
    """Write the pictures that a run has figures for.

    Parameters
    ----------
    results : Results
        One run.
    directory : Path
        Where; made if it is not there.

    Returns
    -------
    list of Path
        What was written, PNG files.

    Raises
    ------
    InvalidArgument
        matplotlib is not installed.
    """
    plt = pyplot()
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for name, draw in PICTURES.items():
        figure = draw(plt, results)
        if figure is None:
            continue
        path = directory / f"{name}.png"
        figure.savefig(path, dpi=_DPI)
        plt.close(figure)
        written.append(path)
    return written


# Dense tables: bars of ns per entry with the limits drawn.

_BARS = {
    dense.PTWALK: _BLUE,
    dense.FIRST_LOOK: _YELLOW,
    dense.PTWALK_2: _SKY,
    dense.BRANCH_FREE: _ORANGE,
    dense.BRANCHY: _RED,
    dense.kernel("scalar"): _GREY,
    dense.MASKS: _PINK,
    dense.WHERE: _BLACK,
}


def _dense(size: str) -> Callable[[Any, Results], Any]:
    def draw(plt: Any, results: Results) -> Any:
        lines = list(results.of(dense.NAME, size=size))
        if not lines:
            return None
        requests = list(dict.fromkeys(line.tags["request"] for line in lines))
        figure, rows = plt.subplots(
            len(requests), 1, figsize=(10, 3.6 * len(requests)), sharex=True, squeeze=False,
            layout="constrained",
        )  # fmt: skip
        for axes, request in zip(rows[:, 0], requests, strict=True):
            _bars(axes, [line for line in lines if line.tags["request"] == request])
            axes.set_title(request, loc="left", fontsize=10)
        handles, labels = rows[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
        tables = value(lines[0].facts["bytes"], "bytes")
        figure.suptitle(
            f"Protect and resolve {tables} of tables in {size}; n× is ptwalk against the limit"
        )
        return figure

    return draw


def _bars(axes: Any, lines: list[Line]) -> None:
    names = [name for name in _BARS if any(name in line.figures for line in lines)]
    width = 0.8 / len(names)
    for number, name in enumerate(names):
        places = [i + (number - (len(names) - 1) / 2) * width for i in range(len(lines))]
        heights = [line.figures[name].least if name in line.figures else 0 for line in lines]
        bars = axes.bar(places, heights, width, color=_BARS[name], label=name)
        if name == dense.PTWALK:
            ratios = [line.ratio(name, dense.LIMIT) or 0 for line in lines]
            axes.bar_label(bars, [f"{ratio:.2f}×" for ratio in ratios], padding=2, fontsize=8)
    for i, line in enumerate(lines):
        for name, style in ((dense.LIMIT, "-"), (dense.COPY, ":")):
            axes.hlines(
                line.figures[name].least, i - 0.45, i + 0.45, colors=_GREEN, linestyles=style,
                linewidth=2, label=f"limit: {name}" if i == 0 else None,
            )  # fmt: skip
    _decimal(axes, "y")
    axes.set_ylabel("ns for each entry, log")
    axes.set_xticks(range(len(lines)), [line.tags["mix"] for line in lines])
    axes.grid(axis="y", alpha=0.3)


# Simulated sizes: time over length.


def _simulated(plt: Any, results: Results) -> Any:
    lines = list(results.of(simulated.NAME, mapping="never touched"))
    if not lines:
        return None
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    curves = {
        simulated.NEW: (_SKY, "s"),
        simulated.UNTOUCHED: (_BLUE, "o"),
        simulated.MARKER: (_GREEN, "^"),
    }
    lengths = [_length(line) for line in lines]
    for name, (colour, mark) in curves.items():
        heights = [line.figures[name].least for line in lines]
        axes.plot(lengths, heights, color=colour, marker=mark, label=name)
    for line in results.of(simulated.NAME, mapping="private tables"):
        for name, colour in ((simulated.DENSE, _RED), (simulated.PRIVATE, _ORANGE)):
            axes.plot(_length(line), line.figures[name].least, "D", color=colour, label=name)
    for line in lines:
        if kernel := line.figures.get(running.WRITEPROTECT):
            axes.plot(_length(line), kernel.least, "P", color=_GREY, label=running.WRITEPROTECT)
    axes.set_xscale("log", base=2)
    _decimal(axes, "y", steps=(1,))
    axes.set_xticks(lengths, [line.tags["length"] for line in lines])
    axes.set_xlabel("length of the mapping")
    axes.set_ylabel("ms for protect and resolve together, log")
    axes.set_title(
        "Uniform ranges cost pointer writes, private tables cost a pass over their bytes"
    )
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


def _length(line: Line) -> float:
    number, unit = line.tags["length"].split()
    return float(number) * (TIB if unit == "TiB" else GIB)


# Walks, export and threads: one bar for each contender.


def _ladder(suite: str, title: str, unit: str) -> Callable[[Any, Results], Any]:
    def draw(plt: Any, results: Results) -> Any:
        lines = [line for line in results.of(suite) if line.figures]
        if not lines:
            return None
        rows = sum(len(line.figures) for line in lines) + len(lines)
        figure, found = plt.subplots(
            len(lines), 1, figsize=(8, 1 + 0.32 * rows), squeeze=False, sharex=True,
            height_ratios=[len(line.figures) for line in lines], layout="constrained",
        )  # fmt: skip
        for axes, line in zip(found[:, 0], lines, strict=True):
            items = sorted(line.figures.items(), key=lambda item: -item[1].least)
            values = [one.least for _, one in items]
            bars = axes.barh(
                [name for name, _ in items], values, color=[_colour(name) for name, _ in items]
            )
            shown = [value(number, "bytes" if unit == "bytes" else "") for number in values]
            axes.bar_label(bars, shown, padding=3, fontsize=8)
            axes.set_title(line.case, loc="left", fontsize=10)
            _decimal(axes, "x", steps=(1,) if _wide(lines) else (1, 2, 5))
        every = [one.least for line in lines for one in line.figures.values()]
        found[-1, 0].set_xlim(min(every) / 2, max(every) * (10 if _wide(lines) else 2))
        found[-1, 0].set_xlabel(f"{unit}, log")
        figure.suptitle(title)
        return figure

    return draw


def _wide(lines: list[Line]) -> bool:
    """Whether figures lie so far apart that only powers of ten can be labelled."""
    every = [one.least for line in lines for one in line.figures.values()]
    return max(every) > _DECADES * min(every)


def _decimal(axes: Any, which: str, *, steps: tuple[int, ...] = (1, 2, 5)) -> None:
    """Make an axis logarithmic, with plain numbers at these steps of each power of ten."""
    from matplotlib.ticker import LogLocator, NullFormatter

    getattr(axes, f"set_{which}scale")("log")
    axis = getattr(axes, f"{which}axis")
    axis.set_major_locator(LogLocator(subs=steps))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def _colour(name: str) -> str:
    """Return blue for ptwalk, green for limits, grey for others."""
    if name.startswith((dense.COPY, dense.LIMIT)):
        return _GREEN
    return _BLUE if name.startswith(("ptwalk", "ptes", "run_batch")) else _GREY


PICTURES: dict[str, Callable[[Any, Results], Any]] = {
    "dense-l2": _dense("L2"),
    "dense-dram": _dense("DRAM"),
    "simulated": _simulated,
    "walks": _ladder(walks.NAME, "Translating random addresses", "ns for each address"),
    "export": _ladder(export.NAME, "Entries as an array, and copies as large", "ns for each entry"),
    "threads": _ladder(threads.NAME, "Two threads, 70/15/10/5", "ns for each entry"),
    "fuzz": _ladder(fuzzing.NAME, "Programs of 20 operations, from state to digest", "ns"),
    "memory": _ladder(memory.NAME, "Memory of a simulated GiB", "bytes"),
}
