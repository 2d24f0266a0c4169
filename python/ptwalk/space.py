"""What the parts of AddressSpace share: the core object and its machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from ._core import AddressSpace as CoreSpace
    from .machine import Machine


class Space:
    """An address space of the core and its machine; base of the parts of `AddressSpace`."""

    machine: Machine
    _core: CoreSpace

    def _adopt(self, machine: Machine, core: CoreSpace) -> None:
        """Become the address space `core` of `machine`."""
        self.machine = machine
        self._core = core

    @classmethod
    def _from_core(cls, machine: Machine, core: CoreSpace) -> Self:
        """Return the address space that the core made on `machine`."""
        space = cls.__new__(cls)
        space._adopt(machine, core)
        return space
