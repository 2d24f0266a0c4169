"""The wheel test: if only one test file is run, then this is the one.

It needs pytest and ptwalk alone, and touches the core, the bindings and the Python layer once.
"""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import ptwalk

BASE, PAGE, LENGTH = 0x7F0000000000, 4096, 4 << 20


def test_seed_story() -> None:
    mm = ptwalk.AddressSpace(profile="uffd-wp-v2")
    vma = mm.mmap(BASE, LENGTH, "rw-", "shared", ptwalk.ShmemFile(LENGTH))
    mm.populate(vma.start, PAGE, write=True)
    uffd = mm.userfaultfd()
    uffd.register(vma.start, LENGTH, "wp")
    result = uffd.writeprotect(vma.start, LENGTH)
    assert repr(result) == (
        "ProtectResult(pages=1024, none_to_marker=1023, present=1, tables_allocated=1, "
        "flush=0x00007f0000000000-0x00007f0000400000)"
    )
    ptes = mm.ptes(vma.start, LENGTH)
    assert ptes.dtype == np.uint64
    assert ptes[0] & ~np.uint64(0xFFFFFFFFFF000) == 0x8000000000000C65
    assert (ptes[1:] == 0x4).all()
    assert mm.access(vma.start, write=True).outcome == "blocked"
    assert mm.validate() == []


def test_import_needs_numpy_only() -> None:
    program = (
        "import sys, ptwalk; print({name.partition('.')[0] for name in sys.modules} & "
        "{'pandas', 'matplotlib', 'rich', 'distributed', 'atheris', 'hypothesis', 'arro3'})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"


def test_import_loads_no_more_than_an_address_space_needs() -> None:
    program = (
        "import sys, numpy; before = set(sys.modules); import ptwalk; "
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert "ptwalk.address_space" in loaded
    late = {"dump", "pte", "live", "live_entries", "procfs", "pagemap", "replay", "workload"}
    late |= {"cli", "demo", "running_kernel"}
    assert loaded & {f"ptwalk.{name}" for name in late} == set()
    foreign = {name.partition(".")[0] for name in loaded} - {"ptwalk"}
    heavy = {
        "argparse",
        "asyncio",
        "concurrent",
        "ctypes",
        "dataclasses",
        "gzip",
        "inspect",
        "json",
    }
    heavy |= {
        "logging",
        "multiprocessing",
        "numpy",
        "pathlib",
        "random",
        "shutil",
        "subprocess",
        "tempfile",
    }
    assert foreign & heavy == set()


def test_what_is_imported_late_is_found() -> None:
    assert ptwalk.Kind is ptwalk.Kind
    assert ptwalk.explain(0x25, profile="6.18").startswith("0x")
    assert "Walk" in dir(ptwalk)
    assert not hasattr(ptwalk, "walk")


def test_public_names_exist() -> None:
    assert [name for name in ptwalk.__all__ if not hasattr(ptwalk, name)] == []
    assert "uffd-wp-v2" in ptwalk.profiles()
    assert ptwalk.kernels()[0] == "scalar"
