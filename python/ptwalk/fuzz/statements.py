"""The operations of programs as statements of Python: one writer for each.

A statement is what a script would have: ``mm.mprotect(0x7f0000000000, 0x1000, 1)``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..vma import Vma
from .program import LENGTHS, MAX_LENGTH, PLACES, operation_of

if TYPE_CHECKING:
    from .calls import World

Values = dict[str, int]

PAGE = 4096
MOST_SPACES = 16
_ODD_BYTES = 0x800
_TASK_SIZE = 0x7FFFFFFFF000  # of four levels
_BY_PAGE = {"locked", "populate", "populate_read", "populate_write", "guard_install"}
_MAP = {"locked": 0x2000, "populate": 0x8000, "noreserve": 0x4000}
_FILES = {"shmem": "ShmemFile", "regular": "RegularFile", "readonly": "ShmemFile"}
_FEATURE_MOVE = 1 << 16
_CP_WORDS = (0x120, 0x8000000000000025, 0x8000000000000027, 0x25, 0x27)
_PKEY5, _UNCACHED = 0xA800000000000025, 0x800000000000003D
_ADVICE = {
    "unknown": 99, "guard_install": 102, "guard_remove": 103,
}  # fmt: skip
_SPECIAL_VMA = 0x400 | 0x4000 | 0x10000000  # VM_PFNMAP, VM_IO, VM_MIXEDMAP
_ACCESS_FLAGS = 7
_PAGE_NONE, _PROT_NUMA = 0x120, 2


def words_of(op: dict[str, int]) -> dict[str, str]:
    """Return the names in an operation by field: of a choice one, of flags those set, with |."""
    words = {}
    for field in operation_of(op).fields:
        value, known = field.canonical(field.get(op)), len(field.names)
        if field.role == "flags":
            words[field.name] = "|".join(field.names[i] for i in range(known) if value >> i & 1)
        elif field.role in ("choice", "choice_or_file"):
            words[field.name] = field.names[value] if value < known else f"file{value - known}"
    return words


class InexpressibleError(Exception):
    """The public API has no call for an operation; a script runs the program as a whole."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One operation as Python.

    Attributes
    ----------
    text : str
        The operation, as `to_text` writes it.
    name : str
        Name of the operation.
    expression : str
        What is evaluated; "None" for an operation that has nothing to act on.
    target : str
        The variable that takes the value, or nothing.
    before : str
        A statement that is always run first, or nothing.
    space : str
        The variable of the address space that it acts on, or nothing.
    """

    text: str
    name: str
    expression: str
    target: str = ""
    before: str = ""
    space: str = ""


def values_of(op: dict[str, int]) -> Values:
    """Return the fields of an operation by name, addresses, lengths and offsets in bytes.

    They are those of the call, odd ones too; ``size`` is that of the file that mmap makes.
    """
    values: Values = {}
    row, words = operation_of(op), words_of(op)
    for field in row.fields:
        value = field.canonical(field.get(op))
        if field.role == "place":
            value = PLACES[value]
        elif field.role in ("length", "pages"):
            value = LENGTHS[value]
        values[field.name] = value
    if {words.get("advice"), *words.get("flags", "").split("|")} & _BY_PAGE and not row.raw:
        values["length"] = min(values["length"], MAX_LENGTH)
    if row.name == "mmap":
        values["offset"] *= PAGE
        values["size"] = values["offset"] + values["length"]
    _make_odd(values, set(words.get("odd", "").split("|")))
    return values


def _make_odd(values: Values, odd: set[str]) -> None:
    """Take values from whole pages as `odd` says; field::ODD_NAMES of the core is the rule."""
    if "wrap" in odd:
        end = _TASK_SIZE if values["length"] > MAX_LENGTH else 0
        values["length"] = (values["length"] + end - values["at"]) % (1 << 64)
    moved = {"length": ("length", "new_length"), "at": ("at",), "to": ("to", "offset")}
    for name in odd & set(moved):
        for field in values.keys() & set(moved[name]):
            values[field] += _ODD_BYTES


def ranges_of(values: Values) -> list[tuple[int, int]]:
    """Return start and length of the ranges of an operation: one, or `ranges` of them."""
    starts = (values["at"] + i * values.get("step", 0) for i in range(values.get("ranges", 1)))
    return [(start, values["length"]) for start in starts]


# One writer for each operation, in the order of the table.


def _range(values: Values) -> str:
    return f"{values['at']:#x}, {values['length']:#x}"


def _ranges(values: Values) -> str:
    pairs = (f"({start:#x}, {length:#x})" for start, length in ranges_of(values))
    return f"[{', '.join(pairs)}]"


def _access(world: World, values: Values) -> str:
    thread = f", thread={values['thread']}" if values["thread"] else ""
    return f"{world.mm(values)}.access({values['at']:#x}, write={bool(values['access'])}{thread})"


def _kernel_access(world: World, values: Values) -> str:
    return f"{world.mm(values)}.kernel_access({values['at']:#x}, write={bool(values['access'])})"


def pattern_access(pattern: int, i: int, nr: int) -> tuple[int, bool]:
    """Page and kind of the i-th access of a pattern."""
    return (
        (i, False),
        (i, True),
        (i, i % 2 == 1),
        (i, i % 2 == 0),
        (nr - 1 - i, False),
        (nr - 1 - i, True),
        (i * 2 % nr, True),
        (i // 2, True),
    )[pattern]


def _access_many(world: World, values: Values) -> str:
    nr = values["length"] // PAGE
    accesses = [pattern_access(values["pattern"], i, nr) for i in range(nr)]
    at = [values["at"] + page * PAGE for page, _ in accesses]
    kinds = {write for _, write in accesses}
    steps = {b - a for a, b in itertools.pairwise(at)}
    if len(steps) == 1 and steps != {0}:
        (step,) = steps
        addresses = f"range({at[0]:#x}, {at[-1] + step:#x}, {step:#x})"
    else:
        addresses = f"[{', '.join(map(hex, at))}]"
    write = str(kinds.pop()) if len(kinds) == 1 else str([write for _, write in accesses])
    return f"{world.mm(values)}.access_many({addresses}, write={write if nr else False})"


def _populate(world: World, values: Values) -> str:
    return f"{world.mm(values)}.populate({_range(values)}, write={bool(values['access'])})"


def _mmap(world: World, values: Values) -> Statement:
    words = words_of(world.op)
    flags, kind = set(words["flags"].split("|")), words["backing"]
    before = target = ""
    if kind == "anon":
        file = "None"
    elif kind.startswith("file"):
        file = world.file(int(kind.removeprefix("file"))) or "None"
    elif kind in _FILES:
        file = world.fresh("file")
        writable = ", writable=False" if kind == "readonly" else ""
        before = f"{file} = ptwalk.{_FILES[kind]}({values['size']:#x}, machine=machine{writable})"
    else:
        raise InexpressibleError(f"a file of {kind}")
    word = 1 if "shared" in flags else 2
    word |= 0x20 if file == "None" else 0
    word |= sum(_MAP[name] for name in flags & set(_MAP))
    word |= 0x100000 if "fixed_noreplace" in flags else 0
    word |= 0 if flags & {"hint", "fixed_noreplace"} else 0x10
    call = (
        f"{world.mm(values)}.mmap({_range(values)}, {values['prot']}, {word:#x}, "
        f"{file}, {values['offset']:#x})"
    )
    if file == "None" and word & 1:  # shared anonymous memory has a file too
        target, call = world.fresh("file"), f"{call}.file"
    return Statement("", "", call, target, before)


def _on_mm(method: str) -> Callable[[World, Values], str]:
    return lambda world, values: f"{world.mm(values)}.{method}({_range(values)})"


def _mprotect(world: World, values: Values) -> str:
    return f"{world.mm(values)}.mprotect({_range(values)}, {values['prot']})"


def _mprotect_many(world: World, values: Values) -> str:
    return f"{world.mm(values)}.mprotect_many({_ranges(values)}, {values['prot']})"


def _madvise(world: World, values: Values) -> str:
    name = words_of(world.op)["advice"]
    advice = repr(name) if name not in _ADVICE else str(_ADVICE[name])
    return f"{world.mm(values)}.madvise({_range(values)}, {advice})"


def _mremap(world: World, values: Values) -> str:
    name, new_length = world.mm(values), values["new_length"]
    vma = world.names[name]._core.find_vma(values["at"])
    if vma is not None and vma[2] & 0x2000:  # VM_LOCKED: what it gains is populated
        new_length = min(new_length, values["length"] + MAX_LENGTH)
    return f"{name}.mremap({_range(values)}, {new_length:#x}, {values['flags']}, {values['to']:#x})"


def _fork(world: World, values: Values) -> Statement | str:
    if len(world.spaces) == MOST_SPACES:
        return "None"
    return Statement("", "", f"{world.mm(values)}.fork()", world.fresh("mm"))


def _exit(world: World, values: Values) -> Statement | str:
    if len(world.spaces) == 1:
        return "None"
    gone = world.mm(values)
    if world.names["moves"] or any(space == gone for _, space in world._fds):
        raise InexpressibleError("the end of an address space that something else holds")
    return Statement("", "", "None", gone)


def _migrate_start(world: World, values: Values) -> str:
    end = values["at"] + values["length"]
    pages = f"range({values['at']:#x}, {end:#x}, {PAGE})"
    one = f"(m := {world.mm(values)}.migrate_pages(a, {PAGE})).pfns"
    return f"moves.extend([m for a in {pages} if {one}])"


def _migrate_finish(world: World, values: Values) -> str:
    moves = world.names["moves"]
    return f"moves.pop({values['which'] % len(moves)}).finish()" if moves else "None"


def _userfaultfd(world: World, values: Values) -> Statement:
    features = values["features"] | (_FEATURE_MOVE if values["api"] & 1 else 0)
    if not values["api"] & 4:
        features &= world.features
    mode = ", user_mode_only=True" if values["api"] & 2 else ""
    call = f"{world.mm(values)}.userfaultfd({features:#x}{mode})"
    return Statement("", "", call, world.fresh("uffd"))


def _ioctl(method: str, arguments: Callable[[Values], str]) -> Callable[[World, Values], str]:
    def write(world: World, values: Values) -> str:
        name, lives = world.uffd(values)
        return f"{name}.{method}({arguments(values)})" if lives else "None"

    return write


def _with_mode(values: Values) -> str:
    return f"{_range(values)}, mode={values['mode']}"


def _from_to(values: Values) -> str:
    return f"{values['at']:#x}, {values['to']:#x}, {values['length']:#x}, mode={values['mode']}"


def _on_uffd(method: str) -> Callable[[World, Values], str]:
    """Close and read, for which the address space need not live."""

    def write(world: World, values: Values) -> str:
        name, lives = world.uffd(values)
        if name and not lives:
            raise InexpressibleError("a userfaultfd without address space")
        return f"{name}.{method}()" if name else "None"

    return write


def _pagemap_scan(world: World, values: Values) -> str:
    masks = f"inverted={values['inverted']}, mask={values['mask']}, anyof={values['anyof']}"
    return (
        f"{world.mm(values)}.pagemap_scan({_range(values)}, flags={values['flags']}, {masks}, "
        f"returned=255, max_pages={values['max_pages']})"
    )


def _on_file(method: str, length: bool) -> Callable[[World, Values], str]:
    def write(world: World, values: Values) -> str:
        name, offset = world.file(values["file"]), values["index"] * PAGE
        if not name:
            return "None"
        more = f", {values['length']:#x}" if length else ""
        return f"{name}.{method}({offset:#x}{more})"

    return write


def _numa(world: World, values: Values) -> str:
    """NUMA balancing, VMA by VMA; device memory and what nobody may access is left out."""
    name, start, end = world.mm(values), values["at"], values["at"] + values["length"]
    calls = [
        f"{name}.change_protection({max(vma.start, start):#x}, {min(vma.end, end):#x}, "
        f"{_PAGE_NONE:#x}, {_PROT_NUMA})"
        for vma in world.names[name].vmas
        if max(vma.start, start) < min(vma.end, end) and vma.vm_flags & _ACCESS_FLAGS
        if not vma.vm_flags & _SPECIAL_VMA
    ]
    return f"[{', '.join(calls)}]"


def newprot_word(vmas: list[Vma], values: Values) -> int:
    """Return the protection word that change_protection is called with."""
    vma = next((vma for vma in vmas if vma.start <= values["at"] < vma.end), None)
    words = (vma.page_prot if vma else _PAGE_NONE, *_CP_WORDS, _PKEY5, _UNCACHED)
    return words[values["newprot"]]


def _change_protection(world: World, values: Values) -> str:
    name, start = world.mm(values), values["at"]
    word = newprot_word(world.names[name].vmas, values)
    end = start + values["length"]
    return f"{name}.change_protection({start:#x}, {end:#x}, {word:#x}, {values['cp_flags']})"


WRITERS: dict[str, Callable[[World, Values], Statement | str]] = {
    "access": _access,
    "access_many": _access_many,
    "kernel_access": _kernel_access,
    "populate": _populate,
    "mmap": _mmap,
    "munmap": _on_mm("munmap"),
    "mprotect": _mprotect,
    "madvise": _madvise,
    "mremap": _mremap,
    "fork": _fork,
    "exit": _exit,
    "mlock": _on_mm("mlock"),
    "munlock": _on_mm("munlock"),
    "reclaim": _on_mm("reclaim"),
    "migrate_start": _migrate_start,
    "migrate_finish": _migrate_finish,
    "userfaultfd": _userfaultfd,
    "close": _on_uffd("close"),
    "register": _ioctl("register", lambda v: f"{_range(v)}, {v['mode']}"),
    "unregister": _ioctl("unregister", _range),
    "writeprotect": _ioctl("writeprotect", _with_mode),
    "wake": _ioctl("wake", _range),
    "copy": _ioctl("copy", _with_mode),
    "zeropage": _ioctl("zeropage", _with_mode),
    "continue": _ioctl("continue_", _with_mode),
    "poison": _ioctl("poison", _with_mode),
    "move": _ioctl("move", _from_to),
    "read": _on_uffd("read"),
    "pagemap_scan": _pagemap_scan,
    "file_write": _on_file("write", length=True),
    "file_read": _on_file("read", length=True),
    "file_truncate": _on_file("truncate", length=False),
    "file_punch_hole": _on_file("punch_hole", length=True),
    "numa": _numa,
    "change_protection": _change_protection,
    "mprotect_many": _mprotect_many,
    "writeprotect_many": _ioctl(
        "writeprotect_many", lambda v: f"{_ranges(v)}, mode={v['mode']}"
    ),
}  # fmt: skip
