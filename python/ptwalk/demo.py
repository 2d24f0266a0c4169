"""``ptwalk demo``: this process as an address space, then the seed's story under three kernels.

Everything printed is computed while it runs: the process is read from /proc, the story is run on
models of three kernels, and where userfaultfd is allowed the running kernel is put through the
same steps and its pagemap compared with the model's, word by word.
"""

from __future__ import annotations

import errno
import mmap
import os
import platform
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from typing import NamedTuple, Protocol

import numpy as np

from . import live, running_kernel
from .address_space import AddressSpace
from .errors import KernelError
from .files import ShmemFile
from .flags import MM_CP_UFFD_WP, MM_CP_UFFD_WP_RESOLVE, UffdPagefaultFlag
from .pagemap import PM_SOFT_DIRTY, U64
from .pte import Kind, names, pfn_cleared

PAGE, LENGTH, BASE = 4096, 4 << 20, 0x7F00_0000_0000
NEWEST = "6.18"
STORY = ("5.12", "uffd-wp-v2", NEWEST)
_PAGE_RW = 1 << 1
_PM_FLAGS = 55  # the bits of a pagemap word from here on are flags
_WIDTH = 100
_TOUCHED = 16 << 20  # bytes of anonymous and of shared memory that the demo adds to its process

NEXT = """\
Next:
  ptwalk read PID                            another process, or "self"
  ptwalk explain 0xfffffffffffffc00 --profile 6.18
  ptwalk replay FILE                         recorded programs of running kernels, step by step
  ptwalk doctor                              what works here
  python3 -c 'import ptwalk; help(ptwalk.AddressSpace)'"""


def demo() -> None:
    """Print the demonstration; under ten seconds, at most 100 columns."""
    this_process()
    story()
    judge()
    print(NEXT)


def _table(header: Sequence[str], rows: Iterable[Sequence[object]], *, left: int = 1) -> None:
    """Print rows in columns; those after the first `left` to the right."""
    cells = [list(header), *([f"{cell}" for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        columns = zip(row, widths, strict=True)
        texts = [c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(columns)]
        print("  " + "  ".join(texts).rstrip())
    print()


def _number(value: int) -> str:
    return f"{value:,}" if value else "-"


# 1. This process.


def this_process() -> None:
    """Read this process, count its entries, write-protect its memory and resolve it."""
    anon = np.zeros(2 * _TOUCHED, dtype=np.uint8)
    anon[:_TOUCHED] = 1
    with closing(mmap.mmap(-1, 2 * _TOUCHED)) as shared:  # Python maps it MAP_SHARED
        shared[:_TOUCHED] = bytes(_TOUCHED)
        mm, report = live.read(os.getpid())
    print("This process, as its /proc shows it:\n")
    for line in str(report).splitlines():
        print(textwrap.fill(line, _WIDTH, initial_indent="  ", subsequent_indent="      "))
    print(f"\nIts pages by kind of VMA and of entry, profile {mm.profile}:\n")
    counts: dict[str, dict[str, int]] = {}
    for vma in mm.vmas:
        row = counts.setdefault(vma.kind, {"VMAs": 0, "pages": 0})
        row["VMAs"] += 1
        row["pages"] += vma.length // PAGE
        for kind, pages in mm.count(vma.start, vma.length).items():
            row[kind] = row.get(kind, 0) + pages
    total = {name: sum(row.get(name, 0) for row in counts.values()) for name in _columns(counts)}
    rows = [*sorted(counts.items()), ("all", total)]
    _table(["", *total], ([kind, *(_number(row.get(c, 0)) for c in total)] for kind, row in rows))
    _protect_all(mm)


def _columns(counts: dict[str, dict[str, int]]) -> list[str]:
    """Return VMAs, pages, and the kinds of entries that occur."""
    found = {name for row in counts.values() for name in row}
    return ["VMAs", "pages", *(k.name.lower() for k in Kind if k.name.lower() in found)]


def _protect_all(mm: AddressSpace) -> None:
    """Write-protect and resolve all anonymous and shmem memory, and print what it did."""
    feature = "wp_unpopulated"
    try:
        uffd = mm.userfaultfd(feature)
    except KernelError:  # before 6.4: an anonymous none entry takes no marker
        feature = "no feature"
        uffd = mm.userfaultfd()
    ranges, refused = [], 0
    for vma in mm.vmas:
        if vma.kind not in ("anon", "shmem"):
            continue
        try:
            uffd.register(vma.start, vma.length, "wp")
        except KernelError:  # EPERM: a shared mapping of a file that is open for reading only
            refused += 1
            continue
        ranges.append((vma.start, vma.length))
    refusals = f" ({refused} refused)" * (refused > 0)
    print(
        f"On the model, its {len(ranges)} anonymous and shmem VMAs{refusals} are registered with\n"
        f"userfaultfd ({feature}), write-protected and resolved; pages by what was done:\n"
    )
    fields = ["pages", "present", "swap", "none_to_marker", "marker_to_none", "none_skipped"]
    rows = []
    for name, protect in (("write-protect", True), ("resolve", False)):
        results = [uffd.writeprotect(*each, protect=protect) for each in ranges]
        sums = [sum(getattr(r, f) for r in results) for f in (*fields, "tables_allocated")]
        rows.append([name, *map(_number, sums)])
    _table(["", *fields, "tables"], rows)


# 2. The seed's story. Its steps are done on models, and on the running kernel.


class _Space(Protocol):
    """Shared shmem of 4 MiB, of a model or of the running kernel. Answers are one or two words."""

    def register(self) -> str: ...
    def writeprotect(self, page: int, *, protect: bool) -> str: ...
    def access(self, page: int, *, write: bool) -> str: ...
    def pagemap(self) -> U64: ...


class _Scene(NamedTuple):
    """A step, what the seed says of it, and the pages whose entries are shown after it."""

    seed: str
    label: str
    act: Callable[[_Space], str]
    entries: tuple[tuple[str, int], ...] = ()


SCENES = (
    _Scene("", "write page 0", lambda s: s.access(0, write=True)),
    _Scene("", "register, mode wp", lambda s: s.register()),
    _Scene(
        "installing the uffd-wp special swap pte as a marker",
        f"write-protect {LENGTH >> 20} MiB",
        lambda s: s.writeprotect(0, protect=True),
        (("written PTE, wr-protect", 0), ("none PTE, wr-protect", 2)),
    ),
    _Scene("", "read page 1", lambda s: s.access(1, write=False), (("  its PTE", 1),)),
    _Scene(
        "first fault-in the page as read-only, then report to userfaultfd server",
        "write page 2",
        lambda s: s.access(2, write=True),
        (("  its PTE", 2),),
    ),
    _Scene(
        "recover from a uffd-wp special swap pte into a none pte",
        "resolve from page 2 on",
        lambda s: s.writeprotect(2, protect=False),
        (("  PTE of page 2", 2), ("  PTE of page 3", 3)),
    ),
    _Scene("", "write page 2 again", lambda s: s.access(2, write=True), (("  its PTE", 2),)),
    _Scene(
        "fault in correctly as usual",
        "write page 3",
        lambda s: s.access(3, write=True),
        (("  its PTE", 3),),
    ),
)


def _outcome(outcome: str, flags: int) -> str:
    return f"{outcome}, {UffdPagefaultFlag(flags).name}" if outcome == "blocked" else outcome


class _Model:
    """The steps on a model. Where `register` is refused, the seed's function is called directly."""

    def __init__(self, profile: str, base: int = BASE, **config: bool) -> None:
        self.mm = AddressSpace(profile=profile, config=config)
        self.vma = self.mm.mmap(base, LENGTH, "rw-", "shared", ShmemFile(LENGTH))
        self.uffd = self.mm.userfaultfd()
        self.registered = False

    def register(self) -> str:
        try:
            self.uffd.register(self.vma.start, LENGTH, "wp")
        except KernelError as e:
            return errno.errorcode[e.errno]
        self.registered = True
        return "done"

    def writeprotect(self, page: int, *, protect: bool) -> str:
        start = self.vma.start + page * PAGE
        if self.registered:
            result = self.uffd.writeprotect(start, self.vma.end - start, protect=protect)
        else:
            word, flag = self.vma.page_prot, MM_CP_UFFD_WP_RESOLVE
            if protect:
                word, flag = word & ~_PAGE_RW, MM_CP_UFFD_WP
            result = self.mm.change_protection(start, self.vma.end, word, flag)
        skipped = f", {result.none_skipped} none left" if result.none_skipped else ""
        return f"pages={result.pages}{skipped}"

    def access(self, page: int, *, write: bool) -> str:
        result = self.mm.access(self.vma.start + page * PAGE, write=write)
        return _outcome(result.outcome, result.message.flags if result.message else 0)

    def pagemap(self) -> U64:
        return self.mm.pagemap(self.vma.start, LENGTH)

    def entry(self, page: int) -> tuple[str, str]:
        """Return the PTE of a page with its pfn cleared, and what it says."""
        ptes = self.mm.ptes(self.vma.start + page * PAGE, PAGE)
        entries = self.mm.decode(ptes)
        entry, word = entries[0], int(pfn_cleared(ptes, entries)[0])
        kind = Kind(entry["kind"]).name.lower()
        if kind == "none":
            return kind, ""
        parts = []
        if kind == "present":
            parts = ["writable" if entry["write"] else "read-only"]
            parts += ["dirty"] * bool(entry["dirty"]) + ["wr-protected"] * bool(entry["uffd_wp"])
        found = names(word, entry, profile=self.mm.profile, config=self.mm.config)
        meaning = f" ({', '.join(parts)})" if parts else ""
        return f"{word:#018x}", f"{kind:7}  {', '.join(found)}{meaning}"


class _Running:
    """The steps on the running kernel, in memory of this process."""

    def __init__(self, kernel: running_kernel.KernelSpace) -> None:
        self.kernel = kernel
        self.start = kernel.mmap(LENGTH, "memfd")

    def register(self) -> str:
        self.kernel.register(self.start, LENGTH)
        return "done"

    def writeprotect(self, page: int, *, protect: bool) -> str:
        offset = page * PAGE
        self.kernel.writeprotect(self.start + offset, LENGTH - offset, protect=protect)
        if not protect:
            self.kernel.settle()  # who was blocked goes on
        return ""  # the ioctl does not tell

    def access(self, page: int, *, write: bool) -> str:
        touch = self.kernel.access(self.start + page * PAGE, write=write)
        return _outcome(touch.outcome, touch.message.flags if touch.message else 0)

    def pagemap(self) -> U64:
        return self.kernel.pagemap(self.start, LENGTH)


def story() -> None:
    """Tell the seed's story on a shmem file, three kernels side by side."""
    models = [_Model(profile) for profile in STORY]
    outcomes: dict[str, list[str]] = {}
    seen: list[dict[str, str]] = [{} for _ in models]
    print(
        "The seed's story, that of the patch \"shmem/userfaultfd: Allow wr-protect none pte for\n"
        'file-backed mem" (2021): a shared shmem file under the kernel before, the kernel with\n'
        "the series, and today's. Entries are shown with their pfn cleared; the patch's words are\n"
        "in quotes. Where registering is refused, change_protection() is called directly.\n"
    )
    print(_cells("", STORY))
    for scene in SCENES:
        if scene.seed:
            print(f'"{scene.seed}"')
        outcomes[scene.label] = [scene.act(model) for model in models]
        print(_cells(scene.label, outcomes[scene.label]))
        for label, page in scene.entries:
            found = [model.entry(page) for model in models]
            print(_cells(label, [word for word, _ in found]))
            for entries, (word, meaning) in zip(seen, found, strict=True):
                entries[word] = meaning
    silent = zip(STORY, outcomes["write page 2"], strict=True)
    unseen = ", ".join(profile for profile, outcome in silent if outcome == "done")
    print(f"\nThe write to page 2 goes unseen under {unseen}: its PTE was none, and was left so.\n")
    for profile, entries in zip(STORY, seen, strict=True):
        print(f"Decoded, {profile}:")
        print("".join(f"  {word}  {text}\n" for word, text in entries.items() if text), end="")
    print()


def _cells(label: str, cells: Sequence[str]) -> str:
    return (f"{label:25}" + "".join(f"{cell:25}" for cell in cells)).rstrip()


# 3. The running kernel as judge.


def judge() -> None:
    """Do the same steps on the running kernel; compare answers and pagemap with the model."""
    release = f"{platform.system()} {platform.release()}"
    if refused := running_kernel.available():
        print(f"running kernel ({release}) not asked: {refused}\n")
        return
    with running_kernel.KernelSpace() as kernel:
        running = _Running(kernel)
        # A fresh VMA is soft-dirty where the kernel has CONFIG_MEM_SOFT_DIRTY.
        soft_dirty = bool(int(running.pagemap()[0]) & PM_SOFT_DIRTY)
        model = _Model(NEWEST, running.start, MEM_SOFT_DIRTY=soft_dirty)
        differences = list(_compare(running, model))
    if differences:
        print(f"running kernel ({release}) differs from {NEWEST}:")
        print("\n".join(f"  {text}" for text in differences) + "\n")
        return
    print(
        f"running kernel agrees with {NEWEST}: {len(SCENES)} steps (userfaultfd allowed)\n"
        f"  {release}: equal answers and messages, and after each step {LENGTH // PAGE} equal\n"
        "  pagemap words (bits 55 to 63)\n"
    )


def _compare(running: _Running, model: _Model) -> Iterator[str]:
    """Yield what differs after each step."""
    for scene in SCENES:
        here, there = scene.act(running), scene.act(model)
        if here and here != there:
            yield f"{scene.label}: {here}, the model {there}"
        ours, theirs = (space.pagemap() >> np.uint64(_PM_FLAGS) for space in (running, model))
        if len(pages := np.flatnonzero(ours != theirs)):
            page = int(pages[0])
            yield (
                f"{scene.label}: {len(pages)} pagemap words, the first of page {page}: bits 55 to "
                f"63 are {int(ours[page]):#05x}, those of the model {int(theirs[page]):#05x}"
            )
