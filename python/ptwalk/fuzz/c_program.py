"""A finding as a stand-alone C program that shows it on the running kernel.

What every program needs is in c_program.c; the rest is a statement for each operation. It needs no
privilege: the userfaultfd handles user-mode faults only, and has SIGBUS, so that a store which
would be reported ends in a signal that the program catches. Where messages are read or tell of
events, accesses and calls wait instead, each in a thread.
"""

from __future__ import annotations

from pathlib import Path

from ..pagemap import PAGE_SIZE
from .executor import SETUPS
from .findings import Finding
from .translate import RANGES, SIGBUS, Step, Translation, translate

_HEAD = """\
/*
 * {title}.
 *
 * Made by ptwalk fuzz. Build and run: cc -Wall -pthread -o show show.c && ./show
 * What was seen:
{sides}
{accesses}
 */
"""
_SIGBUS = """\
 * An access that a userfaultfd is told of ends in SIGBUS here (UFFD_FEATURE_SIGBUS), or in an
 * error of the system call that makes it."""
_WAITS = """\
 * An access that a userfaultfd is told of waits in a thread of its own, and so does a call. As soon
 * as it is woken the kernel goes on with it, where ptwalk tries an access again at the next one to
 * the page, and has done all of a call before its message is read."""

# Statements by operation: {step} is its text, {uffd} its userfaultfd, numbers are arguments.
_RANGE, _FILL = "{0:#x}, {1:#x}", "{0:#x}, {1:#x}, {2:#x}"
_SYSCALLS = {
    "mmap": "{0:#x}, {1:#x}, {2}, {3:#x}, {fd}, {5:#x}",
    "munmap": _RANGE,
    "mprotect": "{0:#x}, {1:#x}, {2}",
    "madvise": "{0:#x}, {1:#x}, {2}",
    "mlock": _RANGE,
    "munlock": _RANGE,
    "mremap": "{0:#x}, {1:#x}, {2:#x}, {3}, {4:#x}",
}
_CALLS = {
    "write": "pwrite(file[{0}], source, {2:#x}, {1:#x})",
    "read_file": "pread(file[{0}], source, {2:#x}, {1:#x})",
    "truncate": "ftruncate(file[{0}], {1:#x})",
    "punch_hole": "fallocate(file[{0}], 3, {1:#x}, {2:#x})",
}
_IOCTLS = {
    "register": (0xC020AA00, _FILL),
    "unregister": (0x8010AA01, _RANGE),
    "wake": (0x8010AA02, _RANGE),
    "writeprotect": (0xC018AA06, _FILL),
    "copy": (0xC028AA03, "{0:#x}, (uintptr_t)source, {1:#x}, {2:#x}"),
    "zeropage": (0xC020AA04, _FILL),
    "continue_": (0xC020AA07, _FILL),
    "poison": (0xC020AA08, _FILL),
    "move": (0xC028AA05, "{0:#x}, {1:#x}, {2:#x}, {3:#x}"),
}
_STATEMENTS = {
    "make_file": "{make}({0}, {2:#x})",
    "access_many": "TOUCH_MANY({step}, {0:#x}, {1}, {pattern})",
    "userfaultfd": "open_uffd({step}, {uffd}, {features:#x}, {2:d}, {flags})",
    "scan": "scan({step}, {0:#x}, {1:#x}, {2:#x}, {3:#x}, {4:#x}, {5:#x}, {6})",
    "access": "touch({step}, {0:#x}, {1:d}, BY_USER)",
    "kernel_access": "touch({step}, {0:#x}, {1:d}, BY_KERNEL)",
    "close": "close_uffd({step}, {uffd})",
    "read": "read_messages({step}, {uffd})",
    "fork": "fork_process({step}, {0})",
    "exit": "exit_process({step})",
    **{name: f"SYSCALL({{step}}, {name}, {words})" for name, words in _SYSCALLS.items()},
    **{name: f"show({{step}}, {call})" for name, call in _CALLS.items()},
    **{
        name: f"IOCTL({{step}}, {{uffd}}, {request:#x}, {words})"
        for name, (request, words) in _IOCTLS.items()
    },
}
# Page and kind of the i-th access, as `pattern_access` has them.
_PATTERNS = (
    "i, 0", "i, 1", "i, i % 2 == 1", "i, i % 2 == 0", "n - 1 - i, 0", "n - 1 - i, 1",
    "i * 2 % n, 1", "i / 2, 1",
)  # fmt: skip
_MAKERS = {"shmem": "make_file", "regular": "make_regular_file", "readonly": "make_readonly_file"}


def _statement(made: Translation, step: Step) -> str:
    """Return the C statement of an operation."""
    name, *args = step.operation
    words: dict[str, object] = {"step": f'"{step.text}"', "uffd": step.uffd}
    match name:
        case "make_file":
            words["make"] = _MAKERS[args[1]]
        case "mmap":
            words["fd"] = "-1" if args[4] is None else f"mapped[{args[4]}]"
        case "access_many":
            words["pattern"] = _PATTERNS[args[2]]
        case "userfaultfd":
            words |= {
                "features": args[0] if made.waits else args[0] | SIGBUS,
                "flags": "USER_MODE_ONLY" if args[1] or not made.waits else "0",
            }
        case "scan":
            *args, (inverted, mask, anyof, _), (max_pages, _) = args
            args += [inverted, mask, anyof, max_pages]
    return _STATEMENTS[name].format(*args, **words)


def _reaches(steps: list[Step], start: int, end: int) -> bool:
    """Say whether anything may be mapped between two addresses."""
    mapped = [(op[1], op[2]) for op in (s.operation for s in steps) if op[0] == "mmap"]
    mapped += [(op[5], op[3]) for op in (s.operation for s in steps) if op[0] == "mremap"]
    return any(at < end and at + length > start for at, length in mapped)


def _main(made: Translation) -> list[str]:
    """Return the statements of main()."""
    files = [step for step in made.steps if step.operation[0] == "make_file"]
    lines = [_statement(made, step) for step in files]
    lines.append(f"start({made.processes}, {made.waits:d})")
    acts = [(step.process, _statement(made, step)) for step in made.steps[len(files) :]]
    reached = [
        (at, pages) for at, pages in RANGES if _reaches(made.steps, at, at + pages * PAGE_SIZE)
    ]
    for process in made.spaces:
        if made.processes > 1:
            acts.append((process, f'puts("process {process}")'))
        acts += [(process, f"print_pagemap({at:#x}, {pages})") for at, pages in reached]
    if made.processes == 1:
        return lines + [statement for _, statement in acts]
    return lines + [f"IN({process}, {statement})" for process, statement in acts]


def c_program_of(finding: Finding) -> bytes | None:
    """Return a C program that shows a finding.

    Returns
    -------
    bytes or None
        C source, which ends with status 77 where userfaultfd is refused. None where a kernel has no
        call for one of the operations, and for bugs of ptwalk itself, which no kernel shows.
    """
    if finding.judge not in ("against", "running-kernel"):
        return None
    made = translate(SETUPS[finding.setup], finding.program)
    if not made.whole:
        return None
    sides = "\n".join(f" *   {state}".replace("*/", "* /") for state in finding.states)
    head = _HEAD.format(
        title=finding.title, sides=sides, accesses=_WAITS if made.waits else _SIGBUS
    )
    common = Path(__file__).with_name("c_program.c").read_text()
    body = "\n".join(f"  {line};" for line in _main(made))
    return f"{head}\n{common}\nint main(void) {{\n{body}\n  return 0;\n}}\n".encode()
