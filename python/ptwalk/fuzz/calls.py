"""Programs on the public API, operation by operation.

A `World` has the objects of a running program by the names that a script gives them. It writes the
statement of the next operation and runs just that, so what is generated is what was run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import ptwalk

from .. import _core
from ..errors import InvalidArgument, KernelError
from .program import PLACES, decode, members, operation_of
from .statements import PAGE, WRITERS, InexpressibleError, Statement, Values, values_of
from .text import op_text

# The places of programs, in the four windows where they lie.
WINDOWS = tuple(
    (PLACES[first], PLACES[last] - PLACES[first] + PAGE)
    for first, last in ((0, 127), (128, 191), (192, 223), (224, 255))
)
ADDRESSES = tuple(
    address for start, length in WINDOWS for address in range(start, start + length, PAGE)
)


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a statement: the value that it returned, or the error that it raised."""

    statement: Statement
    value: Any = None
    error: KernelError | InvalidArgument | None = None


class World:
    """The objects of a program, and the program's next statement.

    Parameters
    ----------
    profile : str
        Which kernel.

    Attributes
    ----------
    names : dict of str to object
        The variables of the script: "mm", "uffd", …
    spaces : list of str
        Variables of the living address spaces, in the order of the executor's.
    features : int
        Features of userfaultfd that the kernel has.
    """

    def __init__(self, profile: str) -> None:
        machine = ptwalk.Machine(profile)
        machine.threads = 1
        mm = ptwalk.AddressSpace(machine=machine)
        self.names: dict[str, Any] = {"ptwalk": ptwalk, "machine": machine, "mm": mm, "moves": []}
        self.spaces = ["mm"]
        self._fds: list[tuple[str, str]] = []  # userfaultfd and its address space
        self._files: list[str] = []
        self._made = {"mm": 1, "uffd": 0, "file": 0}
        self.features = int(_core.profile_info(profile, {})["uffd_features"])

    def run(self, program: bytes) -> Iterator[Done]:
        """Run a program, operation by operation.

        Raises
        ------
        InexpressibleError
            At an operation for which there is no call.
        """
        for op in map(members, decode(program)):
            statement = self.statement(op)
            yield self.perform(statement)

    def perform(self, statement: Statement) -> Done:
        """Run a statement and take note of the objects that it makes."""
        try:
            if statement.before:
                exec(statement.before, self.names)
                self._note_file(statement.before.partition(" = ")[0])
            value = eval(statement.expression, self.names)
        except (KernelError, InvalidArgument) as error:
            if statement.target:
                self.names[statement.target] = None
            if statement.name == "userfaultfd":  # no descriptor: the executor's number is taken
                self._fds.append(("", ""))
            return Done(statement, error=error)
        if statement.target:
            self.names[statement.target] = value
        self._note(statement, value)
        return Done(statement, value)

    def statement(self, op: dict[str, int]) -> Statement:
        """Return the statement of an operation; `perform` must come before the next one."""
        name, values = operation_of(op).name, values_of(op)
        writer = WRITERS.get(name)
        if writer is None:
            raise InexpressibleError(name)
        self.op = op
        written = writer(self, values)
        if isinstance(written, str):
            written = Statement("", "", written)
        space = self.mm(values) if "mm" in values else ""
        if "uffd" in values and self._fds:
            space = self._fds[values["uffd"] % len(self._fds)][1]
        return replace(written, text=op_text(op), name=name, space=space)

    # What operations name

    def mm(self, values: Values) -> str:
        """Return the variable of the address space that an operation names."""
        return self.spaces[values["mm"] % len(self.spaces)]

    def uffd(self, values: Values) -> tuple[str, bool]:
        """Return the variable of the userfaultfd and whether its address space lives."""
        if not self._fds:
            return "", False
        name, space = self._fds[values["uffd"] % len(self._fds)]
        if not name:
            raise InexpressibleError("a userfaultfd that was refused")
        return name, space in self.spaces

    def file(self, number: int) -> str:
        """Return the variable of a file, or nothing where there is none."""
        return self._files[number % len(self._files)] if self._files else ""

    def fresh(self, kind: str) -> str:
        """Return a new variable, such as mm1, uffd or file2."""
        self._made[kind] += 1
        return kind if self._made[kind] == 1 else f"{kind}{self._made[kind] - 1}"

    # What statements make

    def _note_file(self, name: str) -> None:
        if name.startswith("file"):
            self._files.append(name)

    def _note(self, statement: Statement, value: Any) -> None:
        match statement.name:
            case "fork" if statement.target:
                self.spaces.append(statement.target)
            case "exit" if statement.target:
                self.spaces.remove(statement.target)
            case "userfaultfd":
                self._fds.append((statement.target, statement.space))
            case "mmap":
                self._note_file(statement.target)
            case "read":
                for message in value or ():
                    if message.event == "fork":
                        raise InexpressibleError("the userfaultfd of a child")
