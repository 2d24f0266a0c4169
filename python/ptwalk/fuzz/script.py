"""A finding as a Python script: the program on the public API, step by step, on both sides."""

from __future__ import annotations

from .calls import World
from .executor import SETUPS
from .findings import Finding
from .statements import InexpressibleError, Statement
from .text import to_text

_HEAD = '''"""{title}.

Made by ptwalk fuzz; needs nothing but ptwalk and numpy. Prints each step and what it gives, on
{sides}.
"""

import ptwalk


def show(text, call):
    """Print a step and what comes of it; return its value, None for an error."""
    try:
        value = call()
    except ptwalk.PtwalkError as error:
        print(f"  {{text:60}} {{error}}")
        return None
    shown = "" if value is None or isinstance(value, ptwalk.AddressSpace) else str(value)
    print(f"  {{text:60}} {{' '.join(shown.split())}}".rstrip())
    return value

'''


def statements(profile: str, program: bytes) -> tuple[World, list[Statement]]:
    """Return the statements of a program and the world that they end in.

    Raises
    ------
    InexpressibleError
        The public API has no call for one of its operations.
    """
    world = World(profile)
    return world, [done.statement for done in world.run(program)]


def _function(profile: str, program: bytes) -> list[str]:
    """Return the lines of a function that runs a program on a profile."""
    world, made = statements(profile, program)
    lines = [
        "    machine = ptwalk.Machine(profile)",
        "    mm = ptwalk.AddressSpace(machine=machine)",
    ]
    if any("moves" in statement.expression for statement in made):
        lines.append("    moves = []")
    for statement in made:
        if statement.before:
            lines.append(f"    {statement.before}")
        target = f"{statement.target} = " if statement.target else ""
        lines.append(f"    {target}show({statement.text!r}, lambda: {statement.expression})")
    spaces = ", ".join(world.spaces)
    lines += [
        f"    for space in [{spaces}]:",
        "        for vma in space.vmas:",
        "            print(vma)",
        "            print(space.ptdump(vma.start, vma.length))",
    ]
    return lines


def _whole(finding: Finding) -> list[str]:
    """Return the lines for a program that only the executor can run."""
    text = to_text(finding.program)
    return [
        f"    executor = ptwalk.fuzz.Executor(profile, {finding.setup!r})",
        '    program = ptwalk.fuzz.from_text("""',
        *text.splitlines(),
        '""")',
        "    for step in executor.steps(program):",
        '        print(f"  {step.text:60} {step.outcome}")',
        '    print("violations:", executor.run(program).violations)',
    ]


def script_of(finding: Finding) -> bytes:
    """Return a script that shows a finding.

    Parameters
    ----------
    finding : Finding
        What it shall show.

    Returns
    -------
    bytes
        Python source. Each profile runs the statements that fit it: what a call names depends on
        which calls before it worked.
    """
    profiles = [finding.profile]
    if finding.judge == "against":
        profiles.append(finding.against)
    title = finding.title.replace('"', "'")
    lines = [_HEAD.format(title=title, sides=" and ".join(profiles))]
    try:
        bodies = [
            _function(profile, SETUPS[finding.setup] + finding.program) for profile in profiles
        ]
    except InexpressibleError:
        bodies = [_whole(finding) for _ in profiles]
    if all(body == bodies[0] for body in bodies):
        lines += ["", "def run(profile):", *bodies[0], "", ""]
        calls = ["run"] * len(profiles)
    else:
        calls = [f"run_{i + 1}" for i in range(len(profiles))]
        for call, body in zip(calls, bodies, strict=True):
            lines += ["", f"def {call}(profile):", *body, ""]
        lines.append("")
    for call, profile in zip(calls, profiles, strict=True):
        lines += [f"print({profile!r})", f"{call}({profile!r})"]
    return ("\n".join(lines) + "\n").encode()
