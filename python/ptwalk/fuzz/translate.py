"""Programs as operations that a running kernel has: what both sides are asked, and C is made of.

Programs of ptwalk may do what no process can; that is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..pagemap import PAGE_SIZE
from .calls import WINDOWS
from .program import PLACES, decode, members, operation_of
from .statements import Values, values_of, words_of
from .text import op_text

SIGBUS, WP_UNPOPULATED, WP_ASYNC = 1 << 7, 1 << 13, 1 << 15
FIRST = 0x1000_0000_0000  # where programs lie in the running process
FILE_PAGES = 40
Operation = tuple[Any, ...]

_OFFSET = FIRST - PLACES[0]
_LONGEST = 8 << 20  # bytes; the kernel's memory is real
RANGES = [(start + _OFFSET, length // PAGE_SIZE) for start, length in WINDOWS]
_FIXED, _ANONYMOUS, _LOCKED, _NORESERVE = 0x10, 0x20, 0x2000, 0x4000
_ADVICES = {
    "dontneed": 4, "free": 8, "remove": 9, "dontfork": 10, "dofork": 11, "nohugepage": 15,
    "wipeonfork": 18, "keeponfork": 19, "cold": 20, "populate_read": 22, "populate_write": 23,
    "dontneed_locked": 24, "guard_install": 102, "guard_remove": 103,
}  # fmt: skip


def _range(values: Values) -> tuple[int, int]:
    return values["at"] + _OFFSET, min(values["length"], _LONGEST)


def _mmap(values: Values, words: dict[str, str]) -> Operation | None:
    flags = 1 if "shared" in words["flags"] else 2
    flags |= _FIXED | (_NORESERVE if "noreserve" in words["flags"] else 0)
    kind = words["backing"]
    if kind not in ("anon", "shmem") and not kind.startswith("file"):
        return None
    file = {"anon": None, "shmem": "one"}.get(kind, "two")
    flags |= _ANONYMOUS if file is None else 0
    offset = 0 if file is None else values["offset"] * PAGE_SIZE
    return "mmap", *_range(values), values["prot"], flags, file, offset


def _madvise(values: Values, words: dict[str, str]) -> Operation | None:
    advice = _ADVICES.get(words["advice"])
    return None if advice is None else ("madvise", *_range(values), advice)


def _mremap(values: Values, _: dict[str, str]) -> Operation:
    start, length = _range(values)
    target = values["to"] + _OFFSET
    return "mremap", start, length, min(values["new_length"], _LONGEST), values["flags"], target


def _with_mode(name: str) -> Callable[[Values, dict[str, str]], Operation]:
    return lambda values, _: (name, *_range(values), values["mode"])


def _plain(name: str) -> Callable[[Values, dict[str, str]], Operation]:
    return lambda values, _: (name, *_range(values))


def _scan(values: Values, _: dict[str, str]) -> Operation:
    masks = [values["inverted"], values["mask"], values["anyof"], 255]
    return "scan", *_range(values), values["flags"], masks, [values["max_pages"], 64]


def _file(name: str) -> Callable[[Values, dict[str, str]], Operation]:
    def made(values: Values, _: dict[str, str]) -> Operation:
        file, offset = ("one", "two")[values["file"] % 2], values["index"] * PAGE_SIZE
        length = [] if name == "truncate" else [min(values["length"], FILE_PAGES * PAGE_SIZE)]
        return name, file, offset, *length

    return made


_TRANSLATIONS: dict[str, Callable[[Values, dict[str, str]], Operation | None]] = {
    "access": lambda values, _: ("access", values["at"] + _OFFSET, bool(values["access"])),
    "kernel_access": lambda values, _: ("access", values["at"] + _OFFSET, bool(values["access"])),
    "mmap": _mmap,
    "munmap": _plain("munmap"),
    "mprotect": lambda values, _: ("mprotect", *_range(values), values["prot"]),
    "madvise": _madvise,
    "mremap": _mremap,
    "mlock": _plain("mlock"),
    "munlock": _plain("munlock"),
    "register": _with_mode("register"),
    "unregister": _plain("unregister"),
    "writeprotect": _with_mode("writeprotect"),
    "copy": _with_mode("copy"),
    "zeropage": _with_mode("zeropage"),
    "continue": _with_mode("continue_"),
    "poison": _with_mode("poison"),
    "move": lambda values, _: (
        "move", values["at"] + _OFFSET, values["to"] + _OFFSET, _range(values)[1], values["mode"]
    ),
    "pagemap_scan": _scan,
    "file_write": _file("write"),
    "file_truncate": _file("truncate"),
    "file_punch_hole": _file("punch_hole"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Translation:
    """What both sides do for a program.

    Attributes
    ----------
    features : int
        UFFD_FEATURE_ bits of the one userfaultfd.
    operations : list of tuple
        Name and arguments each.
    texts : list of str
        The operations as `to_text` writes them.
    whole : bool
        Nothing was left out or cut short.
    """

    features: int
    operations: list[Operation]
    texts: list[str]
    whole: bool


def translate(program: bytes) -> Translation:
    """Return what both sides do for a program.

    Operations that only ptwalk has, or that could sleep, are left out, and lengths are limited: the
    running kernel is asked for what is left, and so is ptwalk.
    """
    features, whole = 0, True
    operations: list[Operation] = []
    texts: list[str] = []
    for op in map(members, decode(program)):
        row, values = operation_of(op), values_of(op)
        words = words_of(op)
        if row.name == "userfaultfd":
            features |= values["features"] & (WP_UNPOPULATED | WP_ASYNC)
            continue
        made = _TRANSLATIONS[row.name](values, words) if row.name in _TRANSLATIONS else None
        whole &= made is not None and values.get("length", 0) <= _LONGEST
        if made:
            operations.append(made)
            texts.append(op_text(op))
    return Translation(features | SIGBUS, operations, texts, whole)
