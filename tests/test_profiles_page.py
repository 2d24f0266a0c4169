"""Keeps the tables of docs/profiles.md equal to the profiles: every rule that differs, each value.

The rules are read out of cpp/src/profile.cpp, one function a profile that starts from another one
and assigns fields. What the extension module tells of a profile is compared as well.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import ptwalk
import pytest
from paths import REPO
from ptwalk import _core

PAGE = (REPO / "docs" / "profiles.md").read_text(encoding="utf-8")
HEADER = (REPO / "cpp/include/ptwalk/profile.hpp").read_text(encoding="utf-8")
SOURCE = (REPO / "cpp/src/profile.cpp").read_text(encoding="utf-8")

Values = dict[str, str]


def defaults() -> Values:
    """Return the rules of struct Profile with their initialisers."""
    struct = HEADER[HEADER.index("\nstruct Profile {") : HEADER.index("std::array<SwpKind, 32>")]
    return dict(re.findall(r"^  [\w:]+ (\w+) = ([\w:]+);", struct, re.MULTILINE))


@cache
def rules() -> dict[str, Values]:
    """Return the rules of each profile as they are written."""
    made: dict[str, Values] = {}
    for function, base, body in re.findall(
        r"^Profile (\w+)\(\) \{\n  Profile p(?: = (\w+)\(\))?;\n(.*?)^\}", SOURCE, re.M | re.S
    ):
        assigned = dict(re.findall(r"^  p\.(\w+) = (.+);$", body, re.MULTILINE))
        made[function] = (made[base] if base else defaults()) | assigned
    return {values["name"].strip('"'): values for values in made.values()}


def shown(value: str) -> str:
    """Return a value as the page shows it: nothing for false and 0."""
    bits = re.fullmatch(r"1ull << (\d+)", value)
    if bits:
        return f"bit {bits[1]}"
    words = {"true": "yes", "false": "", "0": "", "none": "", "never": ""}
    names = [name.split("::")[-1].removeprefix("PTE_MARKER_") for name in value.split(" | ")]
    text = " ".join(names)
    return words.get(text, text)


def table(first: str) -> list[list[str]]:
    """Return the rows of every table whose header begins with `first`."""
    rows = []
    for block in re.findall(rf"^\| {first} \|.*\n\|.*\n((?:\|.*\n)+)", PAGE, re.MULTILINE):
        rows += [[cell.strip() for cell in line[1:-1].split("|")] for line in block.splitlines()]
    return rows


def test_every_profile_is_read_from_the_source() -> None:
    assert tuple(rules()) == ptwalk.profiles()
    assert len(defaults()) > 50


@pytest.mark.parametrize("profile", ptwalk.profiles())
def test_the_source_says_what_the_module_says(profile: str) -> None:
    info: dict[str, Any] = _core.profile_info(profile, {})
    values = rules()[profile]
    assert values["kernel"].strip('"') == info["kernel"]
    assert values["marker_format"].split("::")[1] == info["marker_format"]
    assert (values["swp_exclusive"] == "true") == info["swp_exclusive"]
    assert int(values["uffd_features"], 16) == info["uffd_features"]
    for field in ("saved_dirty_bit", "devmap_bit"):
        assert shown(values[field]) == (f"bit {info[field].bit_length() - 1}" * bool(info[field]))


def test_every_rule_that_differs_has_its_row() -> None:
    expected = {
        field: [shown(values[field]) for values in rules().values()]
        for field in defaults()
        if len({values[field] for values in rules().values()}) > 1
    }
    found = {row[1].strip("`"): row[2:] for row in table("Rule")}
    assert len(found) == len(table("Rule"))
    for field, values in expected.items():
        assert found.get(field) == values, f"| … | `{field}` | {' | '.join(values)} |"
    assert found.keys() == expected.keys()


def test_the_options_are_the_profiles_defaults() -> None:
    rows = {row[0].strip("`"): row[2:] for row in table("Option")}
    configs = [ptwalk.Machine(profile).config for profile in ptwalk.profiles()]
    assert rows == {
        option: ["on" if config[option] else "" for config in configs] for option in configs[0]
    }


def test_the_swap_types_follow_from_the_options() -> None:
    kinds = [_core.profile_info(profile, {})["swp_kinds"] for profile in ptwalk.profiles()]
    rows = {row[0].replace(" ", "_").replace("-", "_"): row[1:] for row in table("Swap type")}
    every = {kind for numbered in kinds for kind in numbered} - {"swap"}
    assert rows.keys() == every | {"swap"}
    for kind in every:
        assert rows[kind] == [str(k.index(kind)) if kind in k else "" for k in kinds]
    assert rows["swap"] == [f"0 to {numbered.count('swap') - 1}" for numbered in kinds]
