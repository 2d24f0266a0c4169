"""Programs as operations that a running kernel has: what both sides are asked, and C is made of.

Programs of ptwalk may do what no process can; that is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..pagemap import PAGE_SIZE
from .calls import WINDOWS
from .program import MAX_LENGTH, PLACES, decode, members, operation_of
from .statements import Values, pattern_access, values_of, words_of
from .text import op_text

SIGBUS, WP_UNPOPULATED, WP_ASYNC = 1 << 7, 1 << 13, 1 << 15
Operation = tuple[Any, ...]

_LONGEST = 8 << 20  # bytes; the kernel's memory is real
_MOST_ACCESSES = 16  # of access_many, which are made one by one
FIRST = 0x1000_0000_0000  # where programs lie in the running process
_OFFSET = FIRST - PLACES[0]
RANGES = [(start + _OFFSET, length // PAGE_SIZE) for start, length in WINDOWS]
LAST = FIRST + PLACES[-1] - PLACES[0] + PAGE_SIZE + _LONGEST  # nothing of a program ends beyond
_EVENTS = 0b1001110  # UFFD_FEATURE_EVENT_ bits: a call would sleep until somebody reads
_AS_THEY_ARE = 4  # of the field api
_FIXED, _ANONYMOUS = 0x10, 0x20
_MAP = {"locked": 0x2000, "populate": 0x8000, "noreserve": 0x4000, "fixed_noreplace": 0x100000}
_ADVICES = {
    "normal": 0, "willneed": 3, "dontneed": 4, "free": 8, "remove": 9, "dontfork": 10,
    "dofork": 11, "nohugepage": 15, "wipeonfork": 18, "keeponfork": 19, "cold": 20,
    "populate_read": 22, "populate_write": 23, "dontneed_locked": 24, "guard_install": 102,
    "guard_remove": 103, "unknown": 99,
}  # fmt: skip
_BY_PAGE = ("populate_read", "populate_write", "guard_install")


@dataclass(slots=True)
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
        Nothing was left out, cut short or taken for something else.
    files : list of str
        Their names, in the order of the executor's; that of shared anonymous memory has none.
    uffds : int
        How many the program makes.
    """

    features: int = SIGBUS
    operations: list[Operation] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    whole: bool = True
    files: list[str] = field(default_factory=list)
    uffds: int = 0

    def add(self, operation: Operation, text: str) -> None:
        """Add an operation."""
        self.operations.append(operation)
        self.texts.append(text)

    def file(self, number: int) -> str:
        """Return the name of the file that an operation means, or nothing."""
        # Whether shared anonymous memory was mapped, and so has a file, is not known here.
        self.whole &= all(self.files)
        return self.files[number % len(self.files)] if self.files else ""

    def new_file(self, size: int) -> str:
        """Make a file, which is no operation of the program; return its name."""
        name = str(len(self.files))
        self.files.append(name)
        self.add(("file", name, size), "")
        return name

    def userfaultfd(self, values: Values) -> None:
        """Take note of a userfaultfd; both sides have one from the start, which tells no events."""
        self.uffds += 1
        given = values["features"]
        self.whole &= self.uffds == 1 and not (given & _EVENTS or values["api"] & _AS_THEY_ARE)
        self.features |= given & (WP_UNPOPULATED | WP_ASYNC)

    def check(self, values: Values) -> None:
        """Give up being whole for an ioctl without userfaultfd, and for ranges that are cut."""
        self.whole &= "uffd" not in values or self.uffds > 0
        length = values.get("length", 0)
        # ptwalk cuts how far locked mappings grow; which ones are locked is not known here.
        longest = min(length + MAX_LENGTH, _LONGEST)
        self.whole &= length <= _LONGEST and values.get("new_length", 0) <= longest


def _range(values: Values) -> tuple[int, int]:
    return values["at"] + _OFFSET, min(values["length"], _LONGEST)


def _mmap(made: Translation, values: Values, words: dict[str, str]) -> list[Operation]:
    given, kind = set(words["flags"].split("|")), words["backing"]
    start, length = _range(values)
    offset = values["offset"] * PAGE_SIZE
    if given & {"locked", "populate"}:
        length = min(length, MAX_LENGTH)
    flags = (1 if "shared" in given else 2) | sum(_MAP[name] for name in given & set(_MAP))
    flags |= 0 if given & {"hint", "fixed_noreplace"} else _FIXED
    if kind == "anon" or (kind.startswith("file") and not made.files):
        if "shared" in given:
            made.files.append("")
        return [("mmap", start, length, values["prot"], flags | _ANONYMOUS, None, offset)]
    if kind == "shmem":
        file = made.new_file(offset + length)
    else:
        file = made.file(int(kind[4:])) if kind.startswith("file") else ""
    return [("mmap", start, length, values["prot"], flags, file, offset)] if file else []


def _madvise(_: Translation, values: Values, words: dict[str, str]) -> list[Operation]:
    advice = _ADVICES.get(words["advice"])
    start, length = _range(values)
    if words["advice"] in _BY_PAGE:
        length = min(length, MAX_LENGTH)
    return [] if advice is None else [("madvise", start, length, advice)]


def _populate(_: Translation, values: Values, words: dict[str, str]) -> list[Operation]:
    return [("madvise", *_range(values), _ADVICES[f"populate_{words['access']}"])]


def _mremap(_: Translation, values: Values, words: dict[str, str]) -> list[Operation]:
    start, length = _range(values)
    if not length:  # ptwalk does not duplicate shared memory
        return []
    target = values["to"] + _OFFSET
    return [("mremap", start, length, min(values["new_length"], _LONGEST), values["flags"], target)]


def _access_many(_: Translation, values: Values, words: dict[str, str]) -> list[Operation]:
    start, length = _range(values)
    nr = length // PAGE_SIZE
    accesses = [pattern_access(values["pattern"], i, nr) for i in range(nr)]
    made = [("access", start + page * PAGE_SIZE, write) for page, write in accesses]
    return made if nr <= _MOST_ACCESSES else []


def _scan(_: Translation, values: Values, words: dict[str, str]) -> list[Operation]:
    masks = [values["inverted"], values["mask"], values["anyof"], 255]
    return [("scan", *_range(values), values["flags"], masks, [values["max_pages"], 64])]


def _move(_: Translation, values: Values, words: dict[str, str]) -> list[Operation]:
    at, length = _range(values)
    return [("move", at, values["to"] + _OFFSET, length, values["mode"])]


Writer = Callable[[Translation, Values, dict[str, str]], list[Operation]]


def _plain(name: str, *more: str) -> Writer:
    """Return what makes an operation on a range, with more fields."""
    return lambda _, values, words: [(name, *_range(values), *(values[field] for field in more))]


def _access(name: str) -> Writer:
    return lambda _, values, words: [(name, values["at"] + _OFFSET, bool(values["access"]))]


def _file(name: str, *more: str) -> Writer:
    def write(made: Translation, values: Values, words: dict[str, str]) -> list[Operation]:
        file = made.file(values["file"])
        if name == "punch_hole" and not values["length"]:  # a call of the library, which has EINVAL
            return []
        arguments = file, values["index"] * PAGE_SIZE, *(values[field] for field in more)
        return [(name, *arguments)] if file else []

    return write


_TRANSLATIONS: dict[str, Writer] = {
    "access": _access("access"),
    "access_many": _access_many,
    "kernel_access": _access("kernel_access"),
    "populate": _populate,
    "mmap": _mmap,
    "munmap": _plain("munmap"),
    "mprotect": _plain("mprotect", "prot"),
    "madvise": _madvise,
    "mremap": _mremap,
    "mlock": _plain("mlock"),
    "munlock": _plain("munlock"),
    "close": lambda made, values, words: [("close",)],
    "register": _plain("register", "mode"),
    "unregister": _plain("unregister"),
    "writeprotect": _plain("writeprotect", "mode"),
    "wake": _plain("wake"),
    "copy": _plain("copy", "mode"),
    "zeropage": _plain("zeropage", "mode"),
    "continue": _plain("continue_", "mode"),
    "poison": _plain("poison", "mode"),
    "move": _move,
    "pagemap_scan": _scan,
    "file_write": _file("write", "length"),
    "file_truncate": _file("truncate"),
    "file_punch_hole": _file("punch_hole", "length"),
}  # fmt: skip


def translate(program: bytes) -> Translation:
    """Return what both sides do for a program.

    Operations that only ptwalk has, or that could sleep, are left out, and lengths are limited: the
    running kernel is asked for what is left, and so is ptwalk.
    """
    made = Translation()
    for op in map(members, decode(program)):
        name, values = operation_of(op).name, values_of(op)
        if name == "userfaultfd":
            made.userfaultfd(values)
            continue
        made.check(values)
        write = _TRANSLATIONS.get(name)
        operations = write(made, values, words_of(op)) if write else []
        made.whole &= bool(operations)
        for operation in operations:
            made.add(operation, op_text(op))
    return made
