"""Programs as text, one line an operation: ``mmap 0x00007f0000000000 64K rw- shared shmem 0``.

The fields of an operation stand in the order of its row in the table; what lies in ``mm`` follows
where it is not 0: ``odd=at|length``, ``mm=1``, ``uffd=2``. A ``#`` begins a comment.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable

from .. import _core
from ..errors import InvalidArgument
from .program import (
    LENGTHS,
    PLACES,
    TABLE,
    Field,
    ProgramLike,
    as_bytes,
    encode,
    op_number,
)

_NO_FLAG = "-"
_UNITS = {"G": 1 << 30, "M": 1 << 20, "K": 1 << 10}
_PROTS = ["".join(c if bits >> i & 1 else "-" for i, c in enumerate("rwx")) for bits in range(8)]


def _length_text(length: int) -> str:
    if not length:
        return "0"
    unit = next(u for u, size in _UNITS.items() if length % size == 0)
    return f"{length // _UNITS[unit]}{unit}"


_PLACE_OF = {address: place for place, address in enumerate(PLACES)}
_LENGTH_OF = {_length_text(length): LENGTHS.index(length) for length in LENGTHS}


def _refuse(field: Field, word: str, known: str) -> InvalidArgument:
    return InvalidArgument(f"{field.name} {word!r} is not one; use {known}")


def _number(field: Field, word: str) -> int:
    if word.isdecimal() and int(word) < 1 << field.bits:
        return int(word)
    raise _refuse(field, word, f"0 to {(1 << field.bits) - 1}")


def _place(field: Field, word: str) -> int:
    try:
        return _PLACE_OF[int(word, 16)]
    except (KeyError, ValueError):
        known = (
            f"a place of programs: 0x{PLACES[0]:016x} and 127 pages more, or around 2M, 1G, 512G"
        )
        raise _refuse(field, word, known) from None


def _length(field: Field, word: str) -> int:
    if word in _LENGTH_OF:
        return _LENGTH_OF[word]
    raise _refuse(field, word, "0, 4K to 508K, 2M to 16M, or 1G to 4G")


def _prot(field: Field, word: str) -> int:
    if word in _PROTS:
        return _PROTS.index(word)
    raise _refuse(field, word, "rwx with - for what is missing")


def _flags(field: Field, word: str) -> int:
    given = [] if word == _NO_FLAG else word.split("|")
    if unknown := [name for name in given if name not in field.names]:
        raise _refuse(field, unknown[0], f"names of {'|'.join(field.names)}, or {_NO_FLAG}")
    return sum(1 << field.names.index(name) for name in set(given))


def _choice(field: Field, word: str) -> int:
    if word in field.names:
        return field.names.index(word)
    number = word.removeprefix("file")
    if field.role == "choice_or_file" and number != word and number.isdecimal():
        value = int(number) + len(field.names)
        if value < 1 << field.bits:
            return value
    raise _refuse(field, word, ", ".join(field.names))


_PARSERS: dict[str, Callable[[Field, str], int]] = {
    "number": _number,
    "place": _place,
    "length": _length,
    "pages": _length,
    "prot": _prot,
    "flags": _flags,
    "choice": _choice,
    "choice_or_file": _choice,
}
"""The value of a field from what it is called, by its role."""


def _keyword(field: Field) -> bool:
    return field.member == "mm"


def op_text(op: dict[str, int]) -> str:
    """Return one operation as a line."""
    return to_text(encode([op]))


def to_text(program: ProgramLike) -> str:
    """Return a program as text.

    Parameters
    ----------
    program : bytes-like, or array of uint8 or `OP_DTYPE`, shape (n,)
        Any byte string.

    Returns
    -------
    str
        One line for each operation that runs, without a newline at the end. `from_text` gives a
        program that runs identically; for a program in canonical form, the same bytes.

    Raises
    ------
    InvalidArgument
        For what holds no bytes, such as text.
    """
    return _core.fuzz_text(as_bytes(program))


def _parse_line(line: str) -> dict[str, int]:
    name, *words = line.split()
    op = {"op": op_number(name)}
    row = TABLE[op["op"]]
    keywords = {f.name: f for f in row.fields if _keyword(f)}
    fields = [f for f in row.fields if not _keyword(f)]
    given: set[str] = set()
    while words and "=" in words[-1]:
        key, _, word = words.pop().partition("=")
        if key not in keywords:
            raise InvalidArgument(f"{name} has no {key}=; it takes {', '.join(keywords) or 'none'}")
        if key in given:
            raise InvalidArgument(f"{name} has {key}= more than once; leave one of them")
        given.add(key)
        field = keywords[key]
        op["mm"] = op.get("mm", 0) | _PARSERS[field.role](field, word) << field.shift
    if len(words) != len(fields):
        wanted = " ".join(f.name for f in fields)
        raise InvalidArgument(f"{name} has {len(words)} fields; write: {name} {wanted}".rstrip())
    for field, word in zip(fields, words, strict=True):
        op[field.member] = (
            op.get(field.member, 0) | _PARSERS[field.role](field, word) << field.shift
        )
    return op


def from_text(text: str) -> bytes:
    """Return the program that a text describes.

    Parameters
    ----------
    text : str
        Lines as `to_text` writes them; empty lines and what follows a ``#`` are ignored.

    Returns
    -------
    bytes
        The program, in canonical form where the text is `to_text`'s.

    Raises
    ------
    InvalidArgument
        For an unknown operation or field, and a keyword given twice; the text names the line.
    """
    if not isinstance(text, str):
        raise InvalidArgument(f"text {reprlib.repr(text)} is no str; ptwalk.fuzz.to_text makes one")
    ops = []
    for number, line in enumerate(text.splitlines(), 1):
        content = line.partition("#")[0].strip()
        if not content:
            continue
        try:
            ops.append(_parse_line(content))
        except InvalidArgument as error:
            raise InvalidArgument(f"line {number}: {error}") from None
    return encode(ops)
