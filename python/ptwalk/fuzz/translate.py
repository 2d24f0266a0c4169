"""Programs as operations that a running kernel has: what both sides are asked, and C is made of.

Programs of ptwalk may do what no process can; that is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from ..pagemap import PAGE_SIZE
from .calls import WINDOWS
from .program import LENGTHS, MAX_LENGTH, PLACES, decode, members, operation_of
from .statements import MOST_SPACES, Values, ranges_of, values_of, words_of
from .text import op_text

SIGBUS, WP_UNPOPULATED, WP_ASYNC = 1 << 7, 1 << 13, 1 << 15
MADV_RANDOM, MADV_SEQUENTIAL, MADV_DONTDUMP = 1, 2, 16
SCANNED = MAX_LENGTH // PAGE_SIZE  # ranges that a scan can find at most
Operation = tuple[Any, ...]

FIRST = 0x1000_0000_0000  # where programs lie in the running process
_OFFSET = FIRST - PLACES[0]
RANGES = [(start + _OFFSET, length // PAGE_SIZE) for start, length in WINDOWS]
_LONGEST = max(LENGTHS) + PAGE_SIZE  # but for those that reach to the end of user memory
# Nothing that a program maps ends beyond.
LAST = FIRST + PLACES[-1] - PLACES[0] + PAGE_SIZE + _LONGEST + MAX_LENGTH
_EVENTS = 0b1001100  # UFFD_FEATURE_EVENT_ bits: a call sleeps until somebody reads
_EVENT_FORK = 0b10
_FEATURE_MOVE = 1 << 16
_MOVE, _USER_MODE_ONLY, _AS_THEY_ARE = 1, 2, 4  # of the field api
_FIXED, _ANONYMOUS = 0x10, 0x20
_MAP = {"locked": 0x2000, "populate": 0x8000, "noreserve": 0x4000, "fixed_noreplace": 0x100000}
_FILES = ("shmem", "regular", "readonly")
_ADVICES = {
    "normal": 0, "random": MADV_RANDOM, "sequential": MADV_SEQUENTIAL, "willneed": 3,
    "dontneed": 4, "free": 8, "remove": 9, "dontfork": 10, "dofork": 11, "hugepage": 14,
    "nohugepage": 15, "dontdump": MADV_DONTDUMP, "dodump": 17, "wipeonfork": 18, "keeponfork": 19,
    "cold": 20, "populate_read": 22, "populate_write": 23, "dontneed_locked": 24,
    "guard_install": 102, "guard_remove": 103, "unknown": 99,
}  # fmt: skip
_READAHEAD = ("normal", "random", "sequential", "willneed")  # acts on what files have cached


@dataclass(frozen=True, slots=True)
class Step:
    """One operation, and who does it.

    Attributes
    ----------
    operation : tuple
        Name and arguments.
    text : str
        The operation as `to_text` writes it; nothing for what the program needs beforehand.
    process : int
        The process that does it, in the order of their making.
    uffd : int
        The userfaultfd that it acts on or makes.
    """

    operation: Operation
    text: str = ""
    process: int = 0
    uffd: int = 0


@dataclass(slots=True)
class Translation:
    """What both sides do for a program.

    Attributes
    ----------
    steps : list of Step
        The operations; the files come first, so that all processes have them.
    whole : bool
        Nothing was left out or taken for something else.
    waits : bool
        Messages are read or tell of events, so that what they tell of must wait, and an access not
        end in SIGBUS.
    forks_told : bool
        Forks would wait until somebody reads.
    files : list of str
        Their kinds, in the order of the executor's; that of shared anonymous memory has none.
    owners : list of int
        Of each userfaultfd the process that made it.
    perhaps : set of int
        Userfaultfds that may be refused for their features.
    spaces : list of int
        The living processes in the order of the executor's address spaces.
    processes : int
        How many there were.
    locks : bool
        Mappings may be locked.
    """

    steps: list[Step] = field(default_factory=list)
    whole: bool = True
    waits: bool = False
    forks_told: bool = False
    files: list[str] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    perhaps: set[int] = field(default_factory=set)
    spaces: list[int] = field(default_factory=lambda: [0])
    processes: int = 1
    locks: bool = False

    def file(self, number: int) -> str:
        """Return the name of the file that an operation means, or nothing."""
        # Whether shared anonymous memory was mapped, and so has a file, is not known here.
        self.whole &= all(self.files)
        return str(number % len(self.files)) if self.files else ""

    def new_file(self, kind: str, size: int) -> str:
        """Make a file, which is no operation of the program; return its name."""
        name = str(len(self.files))
        self.files.append(kind)
        made = sum(step.operation[0] == "make_file" for step in self.steps)
        self.steps.insert(made, Step(("make_file", name, kind, size)))
        return name

    def actor(self, values: Values) -> tuple[int, int] | None:
        """Return process and userfaultfd of an operation, None where there is none to act on."""
        process = self.spaces[values.get("mm", 0) % len(self.spaces)]
        if "uffd" not in values:
            return process, 0
        if not self.owners:
            return None
        uffd = values["uffd"] % len(self.owners)
        process = self.owners[uffd]
        self.whole &= uffd not in self.perhaps
        return (process, uffd) if process in self.spaces else None


def _range(values: Values) -> tuple[int, int]:
    return values["at"] + _OFFSET, _length(values["length"])


def _wraps(length: int) -> bool:
    return bool(length >> 63)


def _length(length: int) -> int:
    """Return a length as both sides have it; one that wraps around does so there too.

    What would reach to the end of user memory is cut, since other things lie there.
    """
    return (length - _OFFSET) % (1 << 64) if _wraps(length) else min(length, _LONGEST)


def _mmap(made: Translation, values: Values, words: dict[str, str]) -> list[Operation]:
    given, kind = set(words["flags"].split("|")), words["backing"]
    start, length = _range(values)
    offset = values["offset"]
    made.locks |= "locked" in given
    flags = (1 if "shared" in given else 2) | sum(_MAP[name] for name in given & set(_MAP))
    flags |= 0 if given & {"hint", "fixed_noreplace"} else _FIXED
    if kind == "anon" or (kind.startswith("file") and not made.files):
        if "shared" in given:
            made.files.append("")
        return [("mmap", start, length, values["prot"], flags | _ANONYMOUS, None, offset)]
    if kind in _FILES:
        file = made.new_file(kind, values["size"])
    else:
        file = made.file(int(kind[4:])) if kind.startswith("file") else ""
    return [("mmap", start, length, values["prot"], flags, file, offset)] if file else []


def _madvise(made: Translation, values: Values, words: dict[str, str]) -> list[Operation]:
    name = words["advice"]
    if name not in _ADVICES or (name in _READAHEAD and "regular" in made.files):
        return []
    return [("madvise", *_range(values), _ADVICES[name])]


def _populate(_: Translation, values: Values, words: dict[str, str]) -> list[Operation]:
    return [("madvise", *_range(values), _ADVICES[f"populate_{words['access']}"])]


def _mremap(made: Translation, values: Values, words: dict[str, str]) -> list[Operation]:
    start, length = _range(values)
    if not length:  # ptwalk does not duplicate shared memory
        return []
    new_length = values["new_length"]
    if made.locks and new_length > length + MAX_LENGTH:
        # ptwalk cuts how far locked mappings grow; which ones are locked is not known here.
        made.whole, new_length = False, length + MAX_LENGTH
    return [("mremap", start, length, new_length, values["flags"], values["to"] + _OFFSET)]


def _mlock(made: Translation, values: Values, words: dict[str, str]) -> list[Operation]:
    made.locks = True
    return [("mlock", *_range(values))]


def _access_many(_: Translation, values: Values, words: dict[str, str]) -> list[Operation]:
    start, length = _range(values)
    return [("access_many", start, length // PAGE_SIZE, values["pattern"])]


def _fork(made: Translation, values: Values, words: dict[str, str]) -> list[Operation]:
    if len(made.spaces) == MOST_SPACES:
        return []
    child = made.processes
    made.processes += 1
    made.spaces.append(child)
    return [("fork", child)]


def _exit(made: Translation, values: Values, words: dict[str, str]) -> list[Operation]:
    if len(made.spaces) == 1:
        return []
    made.spaces.pop(values["mm"] % len(made.spaces))
    return [("exit",)]


def _userfaultfd(made: Translation, values: Values, words: dict[str, str]) -> list[Operation]:
    made.owners.append(made.spaces[values["mm"] % len(made.spaces)])
    given, api = values["features"], values["api"]
    if api & _AS_THEY_ARE:
        made.perhaps.add(len(made.owners) - 1)
    made.waits |= bool(given & _EVENTS)
    made.forks_told |= bool(given & _EVENT_FORK)
    features = (given & ~_EVENT_FORK) | (_FEATURE_MOVE if api & _MOVE else 0)
    return [("userfaultfd", features, bool(api & _USER_MODE_ONLY), bool(api & _AS_THEY_ARE))]


def _read(made: Translation, values: Values, words: dict[str, str]) -> list[Operation]:
    made.waits = True
    return [("read",)]


def _scan(_: Translation, values: Values, words: dict[str, str]) -> list[Operation]:
    masks = [values["inverted"], values["mask"], values["anyof"], 255]
    return [("scan", *_range(values), values["flags"], masks, [values["max_pages"], SCANNED])]


def _move(_: Translation, values: Values, words: dict[str, str]) -> list[Operation]:
    at, length = _range(values)
    return [("move", at, values["to"] + _OFFSET, length, values["mode"])]


Writer = Callable[[Translation, Values, dict[str, str]], list[Operation]]


def _plain(name: str, *more: str) -> Writer:
    """Return what makes an operation on a range, with more fields."""
    return lambda _, values, words: [(name, *_range(values), *(values[field] for field in more))]


def _many(name: str, field: str) -> Writer:
    """Return what makes an operation on many ranges: single ones, also after one that fails."""

    def write(made: Translation, values: Values, words: dict[str, str]) -> list[Operation]:
        made.whole = False
        starts = (start + _OFFSET for start, _ in ranges_of(values))
        return [(name, start, _length(values["length"]), values[field]) for start in starts]

    return write


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
    "mprotect_many": _many("mprotect", "prot"),
    "madvise": _madvise,
    "mremap": _mremap,
    "fork": _fork,
    "exit": _exit,
    "mlock": _mlock,
    "munlock": _plain("munlock"),
    "userfaultfd": _userfaultfd,
    "close": lambda made, values, words: [("close",)],
    "register": _plain("register", "mode"),
    "unregister": _plain("unregister"),
    "writeprotect": _plain("writeprotect", "mode"),
    "writeprotect_many": _many("writeprotect", "mode"),
    "wake": _plain("wake"),
    "copy": _plain("copy", "mode"),
    "zeropage": _plain("zeropage", "mode"),
    "continue": _plain("continue_", "mode"),
    "poison": _plain("poison", "mode"),
    "move": _move,
    "read": _read,
    "pagemap_scan": _scan,
    "file_write": _file("write", "length"),
    "file_read": _file("read_file", "length"),
    "file_truncate": _file("truncate"),
    "file_punch_hole": _file("punch_hole", "length"),
}  # fmt: skip


def translate(*programs: bytes) -> Translation:
    """Return what both sides do for programs, one after another: a setup, and what follows it.

    Operations that only ptwalk has, that could sleep or have nothing to act on, are left out: the
    running kernel is asked for what is left, and so is ptwalk.
    """
    made = Translation()
    for op in chain.from_iterable(map(members, decode(program)) for program in programs):
        values = values_of(op)
        actor, write = made.actor(values), _TRANSLATIONS.get(operation_of(op).name)
        operations = write(made, values, words_of(op)) if write and actor else []
        length = values.get("length", 0)
        made.whole &= bool(operations) and (length <= _LONGEST or _wraps(length))
        for operation in operations:
            process, uffd = actor or (0, 0)
            if operation[0] == "userfaultfd":
                uffd = len(made.owners) - 1
            made.steps.append(Step(operation, op_text(op), process, uffd))
    made.whole &= made.processes == 1 or not made.forks_told
    return made
