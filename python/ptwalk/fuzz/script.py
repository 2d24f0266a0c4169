"""A finding as a Python script: the program on the public API, step by step, on both sides.

What is no difference between profiles, the judge that saw it says again at the end.
"""

from __future__ import annotations

from .. import _core
from .calls import World
from .executor import SETUPS
from .findings import Finding
from .statements import InexpressibleError, Statement
from .text import to_text

_HEAD = '''"""{title}.

Made by ptwalk fuzz; needs nothing but ptwalk and numpy. Prints each step and what it gives, on
{sides}.
"""

{mutant}import ptwalk


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

_MUTANT = """\
import os

os.environ["PTWALK_MUTANT"] = {name!r}

from ptwalk.cli_fuzz import mutants

if {name!r} not in mutants():
    raise SystemExit(
        "this build of ptwalk has no planted bug {name}; `python3 dev.py mutants` makes one that "
        "has, for PYTHONPATH=build/mutants/python"
    )

"""

_JUDGE = """
def judge(name, profile, setup):
    from ptwalk.fuzz.bench import judges_of
    from ptwalk.fuzz.campaign import Spec

    judge = judges_of(Spec(profile, (setup,), judges=(name,)), setup)[name]()
    found = judge(PROGRAM)
    print(f"judge {name}:", found.title if found else getattr(judge, "skipped", None) or "nothing")
    for state in found.states if found else ():
        print(f"  {state}")

"""


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
    return [
        f"    executor = ptwalk.fuzz.Executor(profile, {finding.setup!r})",
        "    for step in executor.steps(PROGRAM):",
        '        print(f"  {step.text:60} {step.outcome}")',
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
    title, mutant = finding.title.replace('"', "'"), _core.active_mutant()
    sides = " and ".join(profiles) + (f" with the planted bug {mutant}" if mutant else "")
    planted = _MUTANT.format(name=mutant) if mutant else ""
    lines = [_HEAD.format(title=title, sides=sides, mutant=planted)]
    try:
        bodies = [
            _function(profile, SETUPS[finding.setup] + finding.program) for profile in profiles
        ]
    except InexpressibleError:
        bodies = [_whole(finding) for _ in profiles]
    judged = finding.judge != "against"
    if judged or bodies[0] == _whole(finding):
        lines.append(f'PROGRAM = ptwalk.fuzz.from_text("""\n{to_text(finding.program)}\n""")\n')
    if judged:
        lines.append(_JUDGE)
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
    if judged:
        lines.append(f"judge({finding.judge!r}, {finding.profile!r}, {finding.setup!r})")
    return ("\n".join(lines) + "\n").encode()
