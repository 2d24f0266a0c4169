"""Findings: what a judge saw, by what it is called, and its files on disk."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import asdict, dataclass
from typing import Any

# Differences between profiles, the gravest first; what breaks a rule of one profile is graver.
_RANKS = (
    "lost write",
    "lost message",
    "extra message",
    "signal differs",
    "message differs",
    "result differs",
    "errno differs",
)


@dataclass(frozen=True, slots=True)
class Finding:
    """What a judge has to say against a program.

    Attributes
    ----------
    judge : str
        Name of the judge.
    kind : str
        What is wrong, such as "lost write", "errno differs" or the name of a violation.
    title : str
        One line for people.
    program : bytes
        The program that shows it.
    profile, setup : str
        What it runs on.
    against : str
        The other side: a profile, a kernel of the library, or nothing.
    rules : tuple of str
        Rules of the profile that make the difference.
    operation : str
        Name of the operation where they act, or where the judge saw it.
    states : tuple of str
        What each side shows, a line each.
    """

    judge: str
    kind: str
    title: str
    program: bytes
    profile: str
    setup: str
    against: str = ""
    rules: tuple[str, ...] = ()
    operation: str = ""
    states: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """What findings are the same by: judge, kind, rules and the operation where they act."""
        return "|".join((self.judge, self.kind, ",".join(self.rules), self.operation))

    @property
    def rank(self) -> int:
        """Where it stands among others: what loses data first, what is said differently last."""
        return _RANKS.index(self.kind) if self.kind in _RANKS else -1

    @property
    def slug(self) -> str:
        """A file name of its own for each key."""
        words = re.sub(r"[^a-z0-9]+", "-", f"{self.kind} {self.operation}".lower()).strip("-")
        return f"{words}-{hashlib.sha256(self.key.encode()).hexdigest()[:8]}"

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads; the program is base64."""
        return {**asdict(self), "program": base64.b64encode(self.program).decode()}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Finding:
        """Return the finding that `to_json` described."""
        program = base64.b64decode(record["program"])
        lists = {name: tuple(record[name]) for name in ("rules", "states")}
        return cls(**{**record, **lists, "program": program})

    def dumps(self) -> str:
        """Return it as a JSON document."""
        return json.dumps({"key": self.key, **self.to_json()}, indent=1) + "\n"
