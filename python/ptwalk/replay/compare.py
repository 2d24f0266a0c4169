"""Compares what ptwalk did with what the kernel was recorded doing, step by step.

Everything that a trace holds is compared exactly, but for what the traces' README calls volatile or
informative; pages and swap slots, whose numbers mean nothing, are compared by identity.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import zip_longest

import numpy as np
import numpy.typing as npt

from ..pte import explain
from .driver import Driver, Outcome
from .observe import Entries, mincore, observe, vmas_in
from .trace import (
    ACCESSED,
    PAGE_SIZE,
    Json,
    Pages,
    Program,
    Recorded,
    describe_facts,
    name_of,
)

Bytes = npt.NDArray[np.uint8]

_STACK_KIB = 4  # VmPTE that a helper thread's fresh stack may add


@dataclass(frozen=True)
class Difference:
    """The first point at which a program went another way than it was recorded.

    Attributes
    ----------
    program, process : str
        Which program, and who did the operation.
    step : int
        Position in the program, from 0.
    op : dict
        The recorded operation.
    what : str
        What differs.
    recorded, got : str
        The two sides.
    """

    program: str
    process: str
    step: int
    op: Json
    what: str
    recorded: str
    got: str

    def asdict(self) -> Json:
        """Return the fields as a dict."""
        return asdict(self)

    def __str__(self) -> str:
        """Return three lines: where, and both sides below each other."""
        arguments = " ".join(f"{k}={v}" for k, v in self.op.items() if k != "name")
        where = f"{self.program} step {self.step}: {self.process} {self.op['name']} {arguments}"
        sides = f"    recorded  {self.recorded}\n    ptwalk    {self.got}"
        return f"{where.rstrip()}: {self.what}\n{sides}"


class Identities:
    """A one-to-one relation between recorded names and ptwalk's page numbers.

    It holds through a whole program, but a page that MADV_PAGEOUT took may come back under its old
    name or a new one.
    """

    def __init__(self) -> None:
        self._number: dict[int, int] = {}
        self._name: dict[int, int] = {}
        self._paged_out: set[int] = set()

    def paged_out(self, names: set[int]) -> None:
        """Allow the pages of these names to come back under other names or numbers."""
        self._paged_out |= names

    def agree(self, name: int, number: int) -> bool:
        """Relate the two at first sight; return whether they are related."""
        old_number, old_name = self._number.get(name), self._name.get(number)
        if old_number == number:
            return True
        if old_number is not None:
            if name not in self._paged_out:
                return False
            del self._name[old_number]
        if old_name is not None:
            if old_name not in self._paged_out:
                return False
            del self._number[old_name]
        self._paged_out -= {name, old_name}
        self._number[name], self._name[number] = number, name
        return True

    def known_as(self, number: int) -> str:
        """Return the recorded name of a page of ptwalk's, "new" if it has none."""
        return name_of(self._name[number]) if number in self._name else "new"


class Comparison:
    """One program's replay beside its record.

    Parameters
    ----------
    program : Program
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self._driver = Driver(program)
        self._recorded = Recorded(program)
        self._pages = Identities()
        self._ignored = np.uint64(ACCESSED if "accessed" in program.volatile else 0)
        self._tables: dict[str, int] = {"p": self._tables_of("p")}
        self._open: dict[str, npt.NDArray[np.bool_]] = {}

    def unmodelled(self, number: int) -> str | None:
        """Return why the next step cannot be replayed, None when it can."""
        step = self._program.steps[number]
        if not self._driver.knows(step["op"]):
            return f"operation {step['op']['name']}"
        return self._recorded.unmodelled(step)

    def step(self, number: int) -> Difference | None:
        """Perform the next step; return the first difference to the record."""
        step = self._program.steps[number]
        op, proc = step["op"], step["proc"]
        pageout = op["name"] == "madvise" and op["advice"] == "PAGEOUT"
        before = self._recorded.names() if pageout else set()
        victims = self._victims(step) if pageout else []
        outcome = self._driver.perform(proc, op, victims)
        self._recorded.apply(step)
        if op["name"] == "child_exit":
            self._recorded.forget("c")
            self._tables.pop("c", None)
        if pageout:
            self._pages.paged_out(before - self._recorded.names())
        for what, recorded, got in self._differences(step, outcome, len(victims)):
            return Difference(self._program.id, proc, number, op, what, recorded, got)
        return None

    def _victims(self, step: Json) -> list[int]:
        """Return the addresses of the pages that a recorded MADV_PAGEOUT took."""
        start = self._driver.regions[step["op"]["region"]].addr
        return [start + page * PAGE_SIZE for page in self._recorded.pages_out(step)]

    def _differences(
        self, step: Json, outcome: Outcome, taken: int
    ) -> Iterator[tuple[str, str, str]]:
        """Yield (what, recorded, got) of every difference, in the order in which they matter."""
        yield from self._messages(step.get("messages", []), outcome.messages)
        if step["result"] != outcome.result:
            yield "result", str(step["result"]), str(outcome.result)
        if step.get("signals", []) != outcome.signals:
            yield "signals", str(step.get("signals", [])), str(outcome.signals)
        yield from self._state()
        yield from self._mappings(taken)
        if "vmpte_kb" not in self._program.volatile:
            yield from self._vmpte(step.get("vmpte_kb", {}))

    def _messages(self, want: list[Json], got: list[Json]) -> Iterator[tuple[str, str, str]]:
        for number, (a, b) in enumerate(zip_longest(want, got)):
            what = f"message {number}"
            if a is None or b is None:
                yield what, _message_text(a), _message_text(b)
                return
            if _arrival(a) != _arrival(b):
                yield what, _message_text(a), _message_text(b)
            if "pending" in a:
                pending = Pages.of(a["pending"])
                yield from self._entries(f"{what} pending entry", pending, b["pending"])
            if a.get("resolve") != b.get("resolve"):
                yield f"{what} answer", str(a.get("resolve")), str(b.get("resolve"))

    def _state(self) -> Iterator[tuple[str, str, str]]:
        slots = Identities()
        for (proc, name), pages in self._recorded.pages.items():
            region = self._driver.regions[name]
            entries = observe(self._driver.processes[proc].mm, region.addr, region.pages)
            yield from self._entries(f"{proc} {name}", pages, entries, slots)

    def _entries(
        self, where: str, want: Pages, got: Entries, slots: Identities | None = None
    ) -> Iterator[tuple[str, str, str]]:
        """Compare entries; `slots` relates swap slots, which mean something at one moment only."""
        for page in self._first_unequal(want, got):
            yield f"{where} page {page}", *self._sides(want, got, page)
        names, numbers = want.names[want.named], got.ids[got.runs_of(want.named)]
        for page, name, number in zip(
            want.named.tolist(), names.tolist(), numbers.tolist(), strict=True
        ):
            relation = self._pages if name > 0 else slots
            if relation is not None and not relation.agree(name, number):
                kind = "page identity" if name > 0 else "swap slot"
                recorded, own = self._sides(want, got, page)
                own = f"{own} (recorded as {relation.known_as(number)})"
                yield f"{where} page {page} {kind}", recorded, own

    def _first_unequal(self, want: Pages, got: Entries) -> list[int]:
        """Return the first page whose word or facts differ, if any: it begins a run on a side."""
        pages = np.union1d(want.heads, got.heads)
        runs = got.runs_of(pages)
        unequal = want.raw[pages] != got.raw[runs] & ~self._ignored
        unequal |= want.facts[pages] != got.facts[runs]
        first: list[int] = pages[unequal][:1].tolist()
        return first

    def _sides(self, want: Pages, got: Entries, page: int) -> tuple[str, str]:
        """Return both sides of an entry, decoded; the recorded word lacks its frame or offset."""
        run = int(got.runs_of(np.array([page]))[0])
        sides = []
        for fact, word, name in (
            (want.facts[page], want.raw[page], name_of(int(want.names[page]))),
            (got.facts[run], got.words[run], self._pages.known_as(int(got.ids[run]))),
        ):
            text = explain(int(word), profile=self._program.kernel)
            sides.append(" ".join([describe_facts(int(fact)), name, text]))
        return sides[0], sides[1]

    def _mappings(self, taken: int) -> Iterator[tuple[str, str, str]]:
        """Compare VMAs and mincore(), the latter in the mappings of the parent."""
        for proc, process in self._driver.processes.items():
            vmas = process.mm.vmas
            for (owner, name), recorded in self._recorded.vmas.items():
                if owner == proc:
                    got = vmas_in(vmas, self._driver.regions[name])
                    if _vma_text(recorded) != _vma_text(got):
                        yield f"{proc} {name} VMAs", _vma_text(recorded), _vma_text(got)
            if proc == "p":
                for name, want in self._recorded.resident.items():
                    own = mincore(process.mm, vmas, self._driver.regions[name])
                    if not self._residence_agrees(name, want, own, taken):
                        yield f"{name} resident", _characters(want), _characters(own)

    def _residence_agrees(self, name: str, want: Bytes, own: Bytes, taken: int) -> bool:
        """Compare mincore() of a region.

        MADV_PAGEOUT may leave a page that it took in the swap cache, or not freed yet. No entry
        shows which of the two happened, so each of the `taken` pages is open until both sides
        agree on it again.
        """
        unequal = want != own
        if not unequal.any():
            self._open.pop(name, None)
            return True
        known = self._open.get(name, np.zeros_like(unequal))
        if np.count_nonzero(unequal & ~known) > taken:
            return False
        self._open[name] = unequal
        return True

    def _tables_of(self, proc: str) -> int:
        return self._driver.processes[proc].mm.stats.tables_modelled

    def _vmpte(self, want: Json) -> Iterator[tuple[str, str, str]]:
        """Compare the tables that came or went; VmPTE counts those below the root."""
        for proc in self._driver.processes:
            tables = self._tables_of(proc)
            change = 4 * (tables - self._tables.get(proc, tables))
            self._tables[proc] = tables
            recorded = want.get(proc, 0)
            if recorded not in (change, change + _STACK_KIB):
                yield f"{proc} VmPTE", f"{recorded:+} KiB", f"{change:+} KiB"


def _arrival(message: Json) -> Json:
    """Return a message as it arrived, without the waiting entry and the answer."""
    return {k: v for k, v in message.items() if k not in ("pending", "resolve")}


def _message_text(message: Json | None) -> str:
    return "none" if message is None else str({k: message[k] for k in message if k != "pending"})


def _vma_text(vmas: list[Json]) -> str:
    """Print VMAs in pages of their region: ``0-5 rw- sh uw, 5-8 r-- sh``."""
    return ", ".join(
        " ".join([f"{v['first']}-{v['end']}", v["perm"], *sorted(v["flags"])]) for v in vmas
    )


def _characters(resident: Bytes) -> str:
    return resident.tobytes().decode()
