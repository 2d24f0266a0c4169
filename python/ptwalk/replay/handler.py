"""The thread that answers a recorded program's userfaultfd messages.

Models the recorder's handler: each page fault is answered for exactly one page as the program's
policy says, every other event is only read. What is kept of a message has the shape of the traces,
with the entry of the waiting page as `observe` gives it.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .._core import UffdMsg
from ..address_space import AddressSpace
from ..errors import KernelError
from ..userfaultfd import Userfaultfd
from .observe import observe
from .trace import PAGE_SHIFT, PAGE_SIZE, Json, Region

MADV_DONTNEED = 4
_FLAGS = {"WRITE": 1, "WP": 2, "MINOR": 4}
# What the recorder did when an answer failed: ZEROPAGE meets a marker, 6.1 has no WP mode.
_FALLBACK = {"zero": "copy", "poison": "copy", "contwp": "cont"}


@dataclass
class Process:
    """A recorded process: its address space, its userfaultfd and how it answers faults."""

    mm: AddressSpace
    uffd: Userfaultfd | None = None
    policy: dict[str, str] = field(
        default_factory=lambda: {"wp": "unwp", "missing": "zero", "minor": "cont"}
    )


def attempt(call: Callable[[], Any]) -> tuple[Json, Any]:
    """Do a system call: the recorded form of its result, and what it returned or got done."""
    try:
        return {"ret": 0, "errno": None}, call()
    except KernelError as error:
        return {"ret": -1, "errno": errno.errorcode[error.errno]}, error.done


def place(address: int, regions: Mapping[str, Region]) -> Json:
    """Return an address as the traces give it: in a region, or bare where none lies."""
    for region in regions.values():
        if region.addr <= address < region.end:
            page, offset = divmod(address - region.addr, PAGE_SIZE)
            return {"region": region.name, "page": page, **({"offset": offset} if offset else {})}
    return {"address": hex(address)}


def answer(process: Process, regions: Mapping[str, Region], messages: list[Json]) -> list[UffdMsg]:
    """Read what waits, answer the page faults, add all to `messages`; return what was read."""
    if process.uffd is None:
        return []
    waiting: list[UffdMsg]
    result, waiting = attempt(process.uffd.read)
    if result["ret"] != 0:  # UFFDIO_API failed on it
        return []
    for message in waiting:
        if message.event == "pagefault":
            page = message.address >> PAGE_SHIFT << PAGE_SHIFT
            messages.append(
                {
                    "event": "pagefault",
                    "at": place(message.address, regions),
                    "flags": [name for name, bit in _FLAGS.items() if message.flags & bit],
                    "pending": observe(process.mm, page, 1),
                    "resolve": _resolve(process, process.uffd, message.flags, page),
                }
            )
        else:
            messages.append(_event(message, regions))
    return waiting


def _event(message: UffdMsg, regions: Mapping[str, Region]) -> Json:
    """Return the recorded form of a message that needs no answer."""
    if message.event == "fork":
        return {"event": "fork"}
    start = place(message.address, regions)
    if message.to is not None:
        to = place(message.to, regions)
        return {"event": message.event, "from": start, "to": to, "len": message.length}
    assert message.end is not None
    return {"event": message.event, "start": start, "end": place(message.end, regions)}


def _resolve(process: Process, uffd: Userfaultfd, flags: int, page: int) -> Json:
    """Answer one page fault by the policy and return the recorded form of what was done."""
    if flags & _FLAGS["WP"]:
        by = process.policy["wp"]
    else:
        by = process.policy["minor" if flags & _FLAGS["MINOR"] else "missing"]
    result, value = attempt(lambda: _apply(by, process.mm, uffd, page))
    if result["ret"] != 0 and by in _FALLBACK:
        second = _FALLBACK[by]
        by = f"{second}-after-{result['errno']}-from-{by}"
        result, value = attempt(lambda: _apply(second, process.mm, uffd, page))
    return {"by": by, **result, "value": value or 0}


def _apply(by: str, mm: AddressSpace, uffd: Userfaultfd, page: int) -> int:
    """Do what a policy's name stands for and return the in/out field of the ioctl, 0 for none."""
    match by:
        case "unwp":
            uffd.writeprotect(page, PAGE_SIZE, protect=False)
        case "unreg":
            uffd.unregister(page, PAGE_SIZE)
        case "zap":
            mm.madvise(page, PAGE_SIZE, MADV_DONTNEED)
            uffd.wake(page, PAGE_SIZE)
        case "zero":
            return uffd.zeropage(page, PAGE_SIZE)
        case "poison":
            return uffd.poison(page, PAGE_SIZE)
        case "copy" | "copywp":
            return uffd.copy(page, PAGE_SIZE, wp=by == "copywp")
        case "cont" | "contwp":
            return uffd.continue_(page, PAGE_SIZE, wp=by == "contwp")
        case _:
            raise ValueError(f"policy {by!r} is not one of the traces' README")
    return 0
