"""Performs the operations of a recorded program on ptwalk's address spaces.

Nothing of what the recorded kernel did is known here: only the operation, its arguments, the policy
that answers page faults, and which pages MADV_PAGEOUT may take. Models the recorder, whose helper
threads touch pages one by one while its handler answers messages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from .. import flags
from .._core import AccessResult, Signal, profile_info
from ..address_space import AddressSpace
from ..errors import InvalidArgument
from ..files import File, RegularFile, ShmemFile
from ..machine import Machine
from ..userfaultfd import Userfaultfd
from .handler import Process, answer, attempt, place
from .trace import PAGE_SIZE, Json, Program, Region

_SIGNALS = {7: "SIGBUS", 11: "SIGSEGV"}
_API_IOCTLS = 1 << 0x3F | 1 << 0x01 | 1 << 0x00  # UFFD_API_IOCTLS
_VEC_LEN = 512
_WORD = 8  # bytes of one read(2), write(2), pread(2) or pwrite(2)
_MOST_MESSAGES = 20  # for one touch; then the whole region was unregistered
_STUCK = 3 * _MOST_MESSAGES
_FIRST_SLOT, _SLOT = 0x1000_0000_0000, 1 << 31  # where regions were put


@dataclass
class Outcome:
    """What one step gave back, in the form of the traces."""

    result: Json = field(default_factory=lambda: {"ret": 0, "errno": None})
    signals: list[Json] = field(default_factory=list)
    messages: list[Json] = field(default_factory=list)


class Driver:
    """The machine on which one program is replayed.

    Attributes
    ----------
    regions : dict of name to Region
        The ranges made so far.
    processes : dict of name to Process
        "p", and "c" while a child lives.
    """

    def __init__(self, program: Program) -> None:
        self.regions: dict[str, Region] = {}
        self._machine = Machine(program.kernel)
        self.processes = {"p": Process(AddressSpace(machine=self._machine))}
        self._files: dict[str, File | None] = {}

    def knows(self, op: Json) -> bool:
        """Return whether `perform` can do an operation."""
        if op["name"] == "madvise":
            return op["advice"] in flags.Madv.__members__
        return hasattr(self, f"_do_{op['name']}")

    def perform(self, proc: str, op: Json, victims: Sequence[int] = ()) -> Outcome:
        """Do one operation as process `proc`.

        Parameters
        ----------
        proc : str
            Name of the process.
        op : dict
            The recorded operation.
        victims : sequence of int
            Addresses of the pages that MADV_PAGEOUT takes.
        """
        process, out = self.processes[proc], Outcome()
        if op["name"] == "madvise":
            self._do_madvise(process, op, out, victims)
        else:
            getattr(self, f"_do_{op['name']}")(process, op, out)
        answer(process, self.regions, out.messages)
        return out

    def _range(self, op: Json) -> tuple[int, int]:
        """Return start and length in bytes of an operation's pages."""
        region = self.regions[op["region"]]
        return region.addr + op["first"] * PAGE_SIZE, op["count"] * PAGE_SIZE

    # Mappings

    def _do_map(self, process: Process, op: Json, out: Outcome) -> None:
        region = Region(op["region"], op["pages"], int(op["addr"], 16))
        file = self._files[region.name] = self._file_of(op, region)
        how = f"{op['share']}|fixed_noreplace" + ("" if file else "|anonymous")
        length = region.pages * PAGE_SIZE
        out.result, _ = attempt(lambda: process.mm.mmap(region.addr, length, op["prot"], how, file))
        self.regions[region.name] = region

    def _file_of(self, op: Json, region: Region) -> File | None:
        """Return the file that a map operation maps, None for anonymous memory."""
        if "same_file_as" in op:
            return self._files[op["same_file_as"]]
        backing, _, access = op["backing"].partition("-")
        if backing in ("anon", "shmem"):
            return None
        make = RegularFile if backing == "file" else ShmemFile
        return make(region.pages * PAGE_SIZE, machine=self._machine, writable=access != "readonly")

    def _do_munmap(self, process: Process, op: Json, out: Outcome) -> None:
        start, length = self._range(op)
        out.result, _ = attempt(lambda: process.mm.munmap(start, length))

    def _do_mmap_fixed(self, process: Process, op: Json, out: Outcome) -> None:
        start, length = self._range(op)
        out.result, _ = attempt(
            lambda: process.mm.mmap(start, length, op["prot"], "private|anonymous|fixed")
        )

    def _do_mremap(self, process: Process, op: Json, out: Outcome) -> None:
        start, length = self._range(op)
        new_length = op["new_count"] * PAGE_SIZE
        how = "|".join(["maymove", "fixed", *map(str.lower, op["flags"])])
        # A call that failed was recorded without its new address: the next slot stands for it.
        new = int(op["new_addr"], 16) if "new_addr" in op else self._next_slot()
        out.result, _ = attempt(lambda: process.mm.mremap(start, length, new_length, how, new))
        answer(process, self.regions, out.messages)  # before the new region has a name
        if "new_region" in op:
            name = op["new_region"]
            self.regions[name] = Region(name, op["new_count"], new)
            self._files[name] = self._files[op["region"]]

    def _next_slot(self) -> int:
        """Return the first slot above all regions."""
        highest = max(region.end for region in self.regions.values())
        return _FIRST_SLOT + -(-(highest - _FIRST_SLOT) // _SLOT) * _SLOT

    def _do_mprotect(self, process: Process, op: Json, out: Outcome) -> None:
        start, length = self._range(op)
        out.result, _ = attempt(lambda: process.mm.mprotect(start, length, op["prot"]))

    def _do_madvise(self, process: Process, op: Json, out: Outcome, victims: Sequence[int]) -> None:
        start, length = self._range(op)
        advice = flags.Madv[op["advice"]]
        chosen = victims if advice == flags.MADV_PAGEOUT else None
        out.result, _ = attempt(lambda: process.mm.madvise(start, length, advice, victims=chosen))

    def _do_mlock(self, process: Process, op: Json, out: Outcome) -> None:
        start, length = self._range(op)
        for _ in range(_STUCK):  # a call again is the retry of the fault that waits
            out.result, _ = attempt(lambda: process.mm.mlock(start, length))
            if not answer(process, self.regions, out.messages):
                break

    def _do_munlock(self, process: Process, op: Json, out: Outcome) -> None:
        start, length = self._range(op)
        out.result, _ = attempt(lambda: process.mm.munlock(start, length))

    # Processes

    def _do_fork(self, process: Process, op: Json, out: Outcome) -> None:
        child = Process(process.mm.fork(), policy=dict(process.policy))
        self.processes["c"] = child
        for message in answer(process, self.regions, out.messages):
            if message.child is not None:
                child.uffd = Userfaultfd(child.mm, message.child)

    def _do_child_exit(self, process: Process, op: Json, out: Outcome) -> None:
        del self.processes["c"]

    # userfaultfd

    def _do_userfaultfd(self, process: Process, op: Json, out: Outcome) -> None:
        numbers = [int(name) for name in op["features"] if name.isdecimal()]
        names = [flags.UffdFeature[name] for name in op["features"] if not name.isdecimal()]
        features = sum({*numbers, *map(int, names)})
        out.result, process.uffd = attempt(lambda: process.mm.userfaultfd(features))
        done = out.result["ret"] == 0
        known = profile_info(self._machine.profile, {})["uffd_features"]
        out.result["features"] = _mask(known if done else 0)
        out.result["ioctls"] = _mask(_API_IOCTLS if done else 0)

    def _do_close_userfaultfd(self, process: Process, op: Json, out: Outcome) -> None:
        if process.uffd is not None:
            process.uffd.close()
        process.uffd = None

    def _do_policy(self, process: Process, op: Json, out: Outcome) -> None:
        process.policy = {kind: op[kind] for kind in ("wp", "missing", "minor")}

    def _ioctl(
        self, process: Process, out: Outcome, call: Callable[[Userfaultfd], Any], field: str = ""
    ) -> Any:
        """Do one ioctl; `field` names its in/out field in the result, if it has one."""
        uffd, value = process.uffd, 0
        if uffd is not None:
            out.result, value = attempt(lambda: call(uffd))
        else:
            out.result = {"ret": -1, "errno": "EBADF"}
        if field:
            out.result[field] = value or 0
        return value

    def _do_register(self, process: Process, op: Json, out: Outcome) -> None:
        start, length = self._range(op)
        mode = "|".join(op["modes"])
        ioctls = self._ioctl(process, out, lambda uffd: uffd.register(start, length, mode))
        if out.result["ret"] == 0:
            out.result["ioctls"] = _mask(ioctls)

    def _do_unregister(self, process: Process, op: Json, out: Outcome) -> None:
        start, length = self._range(op)
        self._ioctl(process, out, lambda uffd: uffd.unregister(start, length))

    def _do_writeprotect(self, process: Process, op: Json, out: Outcome) -> None:
        start, length = self._range(op)
        mode = sum({"WP": 1, "DONTWAKE": 2}[name] for name in op["mode"])
        self._ioctl(process, out, lambda uffd: uffd.writeprotect(start, length, mode=mode))

    def _do_writeprotect_bytes(self, process: Process, op: Json, out: Outcome) -> None:
        start = self.regions[op["region"]].addr + op["offset"]
        length, mode = op["length"], op["mode"]
        self._ioctl(process, out, lambda uffd: uffd.writeprotect(start, length, mode=mode))

    def _do_copy(self, process: Process, op: Json, out: Outcome) -> None:
        start, length = self._range(op)
        wp = "WP" in op["mode"]
        self._ioctl(process, out, lambda uffd: uffd.copy(start, length, wp=wp), "value")

    def _do_zeropage(self, process: Process, op: Json, out: Outcome) -> None:
        start, length = self._range(op)
        self._ioctl(process, out, lambda uffd: uffd.zeropage(start, length), "value")

    def _do_poison(self, process: Process, op: Json, out: Outcome) -> None:
        start, length = self._range(op)
        self._ioctl(process, out, lambda uffd: uffd.poison(start, length), "value")

    def _do_continue(self, process: Process, op: Json, out: Outcome) -> None:
        start, length = self._range(op)
        wp = "WP" in op["mode"]
        self._ioctl(process, out, lambda uffd: uffd.continue_(start, length, wp=wp), "value")

    def _do_move(self, process: Process, op: Json, out: Outcome) -> None:
        dst = self.regions[op["dst"]].addr + op["dst_first"] * PAGE_SIZE
        src = self.regions[op["src"]].addr + op["src_first"] * PAGE_SIZE
        length, mode = op["count"] * PAGE_SIZE, op["mode"]
        self._ioctl(process, out, lambda uffd: uffd.move(dst, src, length, mode=mode), "value")

    # Accesses

    def _do_read(self, process: Process, op: Json, out: Outcome) -> None:
        self._touch_all(process, op, out, write=False)

    def _do_write(self, process: Process, op: Json, out: Outcome) -> None:
        self._touch_all(process, op, out, write=True)

    def _touch_all(self, process: Process, op: Json, out: Outcome, *, write: bool) -> None:
        region = self.regions[op["region"]]
        for page in range(op["first"], op["first"] + op["count"]):
            addr = region.addr + page * PAGE_SIZE
            access = partial(process.mm.access, addr, write=write)
            signal = self._touch(process, region, out, access)
            if signal is not None:
                name = _SIGNALS[signal.signo]
                out.signals.append({"page": page, "signal": name, "code": signal.code})

    def _touch(
        self, process: Process, region: Region, out: Outcome, access: Callable[[], AccessResult]
    ) -> Signal | None:
        """Repeat an access until it is done or ends in a signal, which is returned."""
        answered = 0
        for _ in range(_STUCK):
            result = access()
            if result.outcome != "blocked":
                return result.signal
            answered += len(answer(process, self.regions, out.messages))
            if answered > _MOST_MESSAGES and process.uffd is not None:
                out.messages.append({"event": "test-gave-up-and-unregistered"})
                process.uffd.unregister(region.addr, region.end - region.addr)
                answered = 0
        out.messages.append({"event": "never done"})
        return None

    def _do_kernel_access(self, process: Process, op: Json, out: Outcome) -> None:
        region = self.regions[op["region"]]
        addr, write = region.addr + op["first"] * PAGE_SIZE, op["direction"] == "write"
        access = partial(process.mm.kernel_access, addr, write=write)
        out.result, _ = attempt(lambda: self._touch(process, region, out, access))
        if out.result["ret"] == 0:
            out.result["ret"] = _WORD

    # Files

    def _do_file_read(self, process: Process, op: Json, out: Outcome) -> None:
        self._file(op).read(op["first"] * PAGE_SIZE, _WORD)
        out.result["ret"] = _WORD

    def _do_file_write(self, process: Process, op: Json, out: Outcome) -> None:
        self._file(op).write(op["first"] * PAGE_SIZE, _WORD)
        out.result["ret"] = _WORD

    def _do_file_truncate(self, process: Process, op: Json, out: Outcome) -> None:
        self._file(op).truncate(op["pages"] * PAGE_SIZE)

    def _do_file_punch_hole(self, process: Process, op: Json, out: Outcome) -> None:
        self._file(op).punch_hole(op["first"] * PAGE_SIZE, op["count"] * PAGE_SIZE)

    def _file(self, op: Json) -> File:
        file = self._files[op["region"]]
        if file is None:
            raise InvalidArgument(f"region {op['region']} has no file; the trace is damaged")
        return file

    # What user space sees

    def _do_pagemap_scan(self, process: Process, op: Json, out: Outcome) -> None:
        start, length = self._range(op)
        words = {name: op[name] for name in ("flags", "inverted", "mask", "anyof", "returned")}
        out.result, scan = attempt(
            lambda: process.mm.pagemap_scan(start, length, vec_len=_VEC_LEN, **words)
        )
        if out.result["ret"] == 0:
            base = self.regions[op["region"]].addr
            out.result |= {
                "ret": len(scan.ranges),
                "walk_end": place(scan.walk_end, self.regions),
                "ranges": [
                    [(start - base) // PAGE_SIZE, (end - base) // PAGE_SIZE, hex(categories)]
                    for start, end, categories in scan.ranges
                ],
            }


def _mask(word: int) -> str:
    """Return a mask as the traces print it."""
    return hex(word) if word else "0"
