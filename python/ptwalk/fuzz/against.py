"""One profile against another: what user space sees must be equal, or a rule must say why not.

The rules are found by hybrids: the profile with one rule of the other. If it then behaves as the
other does, that rule is the difference; if no single one is enough, the smallest set that is found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, lru_cache
from itertools import zip_longest

import numpy as np

from ..errors import InvalidArgument
from ..profile_rules import differing, hybrid, sentence
from .corpus import Mask
from .executor import Executor, Step
from .findings import Finding
from .judges import Ranks, first_row, name_of, prefixes, run_all
from .mutate import MAX_OPS, OP_BYTES, Programs, Weights, random_ops
from .program import OPERATIONS
from .task import Batch

_EXECUTORS = 96  # hybrids that are kept for each setup; each reserves address space
_ALONE = 64  # operations of each kind that are tried alone
_CLOSELY = 64  # programs of a batch whose first difference is looked for
_ACCESSES = ("access", "access_many", "kernel_access")

# What the literature calls them: by rule, and by the operation where it acts.
_NAMES = {
    ("writenotify_uffd_wp", "mprotect"): "mprotect gives RW back to an armed shared page (HZ1)",
    (
        "writenotify_uffd_wp",
        "numa",
    ): "a NUMA hint fault gives RW back to an armed shared page (HZ2)",
    ("writenotify_uffd_wp", "migrate_finish"): (
        "migration gives RW back to an armed shared page (HZ3)"
    ),
    ("wp_table_word", "writeprotect"): "resolving grants RW at once on shared memory (HZ4)",
    ("unregister_resolves", "unregister"): "unregistering leaves UFFD_WP bits and markers (HZ12)",
}


_MESSAGES = ("pagefault", "fork", "remap", "remove", "unmap")


def kind_of(one: Step, other: Step) -> str:
    """Say how two outcomes of one operation differ, seen from the first side."""
    pairs = zip_longest(one.visible.split("; "), other.visible.split("; "), fillvalue="")
    i, a, b = next(((i, a, b) for i, (a, b) in enumerate(pairs) if a != b), (0, "", ""))
    if "done" in a and "blocked" in b:
        return "lost write" if _is_store(one, i) or "WRITE" in other.visible else "lost message"
    if "blocked" in a and "done" in b:
        return "extra message"
    if "signal" in a or "signal" in b:
        return "signal differs"
    if any(word.startswith(("E", "errno", "InvalidArgument", "nothing")) for word in (a, b)):
        return "errno differs"
    if a.startswith(_MESSAGES) or b.startswith(_MESSAGES):
        return "message differs"
    return "result differs"


def alike(one: Executor, other: Executor, program: bytes) -> bool:
    """Whether user space sees the same on both."""
    return one.run(program).visible == other.run(program).visible


def _is_store(step: Step, i: int) -> bool:
    """Whether the i-th access of access_many is a store; its outcome does not say."""
    words = step.text.split()
    if words[:1] != ["access_many"]:
        return False
    first, _, second = words[3].partition("_")
    return (second if i % 2 and second in ("read", "write") else first) == "write"


class Against:
    """A profile against another one.

    Parameters
    ----------
    make : callable
        Returns the executor of a profile, by its name.
    profile, other : str
        The profiles; `other` is one of `ptwalk.profiles`.
    setup : str
        What programs start from.

    Raises
    ------
    InvalidArgument
        The profiles have the same rules.
    """

    name = "against"
    limit = 8

    def __init__(
        self, make: Callable[[str], Executor], profile: str, other: str, setup: str
    ) -> None:
        self._rules = differing(profile, other)
        if not self._rules:
            raise InvalidArgument(
                f"profiles {profile!r} and {other!r} have the same rules; compare with another one"
            )
        self._profile, self._other, self._setup = profile, other, setup
        self._one, self._two = make(profile), make(other)

        @lru_cache(_EXECUTORS)
        def hybrid_executor(names: tuple[str, ...]) -> Executor | None:
            try:
                return make(hybrid(profile, other, names))
            except InvalidArgument:  # no kernel can be so
                return None

        self._hybrid = hybrid_executor

    def run(self, programs: Programs) -> Batch:
        """Run programs on the other profile."""
        self._last = run_all(self._two, programs)
        return self._last

    def noise(self) -> Weights:
        """Return which part of the operations of each kind differs all by itself."""
        part: Weights = np.mean(self._alone()[1].reshape(_ALONE, -1), axis=0)
        return part

    def _alone(self) -> tuple[list[bytes], Mask]:
        """Return operations of each kind, and which of them differ all by themselves."""
        kinds = np.arange(len(OPERATIONS))
        even = np.full(len(kinds), 1 / len(kinds))
        ops = random_ops(np.random.default_rng(0), (_ALONE, len(kinds)), even)
        ops[..., 0] = kinds
        alone = [op.tobytes() for op in ops.reshape(-1, OP_BYTES)]
        one, two = (side.run_batch(alone, coverage=False) for side in (self._one, self._two))
        return alone, one.visible != two.visible

    @cached_property
    def _loud(self) -> tuple[str, ...]:
        """The rules that operations show all by themselves, as far as they go together."""
        alone, differs = self._alone()
        loud = [op for op, differ in zip(alone, differs.tolist(), strict=True) if differ]
        found = self._first_differences((), loud, range(len(loud)))
        return self._together({rule for _, _, rule in found})

    def _together(self, rules: set[str]) -> tuple[str, ...]:
        """Return those of some rules that a hybrid can have, as far as they go together."""
        names: tuple[str, ...] = ()
        for rule in self._rules:
            if rule in rules and self._hybrid((*names, rule)) is not None:
                names = (*names, rule)
        return names

    def _with(self, rules: tuple[str, ...]) -> Executor:
        """Return the executor of the profile with rules of the other, which go together."""
        return (self._hybrid(rules) if rules else None) or self._one

    def suspects(
        self, programs: Programs, batch: Batch, fresh: Mask, known: frozenset[str]
    ) -> Ranks:
        """Take programs that differ.

        Better are those that known rules do not explain. Of some, the first difference that no
        operation shows by itself and the
        rule that makes it are looked for: best are those where an operation came before that was
        never named with that rule, loads and stores before the rest, short programs first. So what
        differs often does not hide what differs rarely.
        """
        differs = batch.visible != self._last.visible
        ranks: Ranks = np.asarray(differs, np.int64)
        rows = np.flatnonzero(differs)
        explained = self._explained(known)
        if explained is not None and rows.size:
            some = Programs(programs.ops[rows], programs.lengths[rows])
            left = run_all(explained, some, coverage=False).visible != self._last.visible[rows]
            ranks[rows[left]] = 2
        some = Programs(programs.ops[rows], programs.lengths[rows])
        quiet = (
            run_all(self._with(self._loud), some, coverage=False).visible
            != self._last.visible[rows]
        )
        order = np.argsort(-ranks[rows] - fresh[rows], kind="stable")
        chosen = rows[order[quiet[order]]][:_CLOSELY].tolist()
        seen, closely = _named(known), [programs[row] for row in chosen]
        for row, cut, rule in self._first_differences(self._loud, closely, chosen):
            names = [name_of(cut, i) for i in range(len(cut) // OP_BYTES)]
            lost = names[-1] in _ACCESSES
            where, could_act = ("lost", names) if lost else (names[-1], names[-1:])
            new = {(where, rule, name) for name in could_act} - seen
            if new:
                seen |= new
                ranks[row] = MAX_OPS * (1 + lost) + MAX_OPS - len(names)
        return ranks

    def _first_differences(
        self, given: tuple[str, ...], programs: Sequence[bytes], rows: Sequence[int]
    ) -> Iterator[tuple[int, bytes, str]]:
        """Yield the row, the program up to its first difference, and the rule that makes it.

        What the given rules explain is passed by.
        """
        beginnings = [prefixes(program) for program in programs]
        every = [beginning for some in beginnings for beginning in some]
        sides = (self._with(given), self._two)
        one, two = (side.run_batch(every, coverage=False).visible for side in sides)
        differs, cuts, wanted, at = one != two, [], [], 0
        for some in beginnings:
            first = first_row(differs[at : at + len(some)])
            assert first is not None
            cuts.append(some[first])
            wanted.append(two[at + first])
            at += len(some)
        rules = np.full(len(cuts), "", object)
        for rule in self._rules:
            if (side := self._hybrid((*given, rule))) and cuts:
                agrees = side.run_batch(cuts, coverage=False).visible == np.array(wanted)
                rules[agrees & (rules == "")] = rule
        yield from zip(rows, cuts, rules.tolist(), strict=True)

    def look(self, program: bytes, known: frozenset[str]) -> Finding | None:
        """Judge the first difference; if it is known, the first that is not or that is not loud."""
        found = self(program)
        for side in (self._with(self._loud), self._explained(known)):
            if found is None or found.key not in known or side is None:
                return found
            if left := self._only(side, program):
                found = self(left) or found
        return found

    def _only(self, side: Executor, program: bytes) -> bytes:
        """Return what it takes for the first difference from another side; nothing for none."""
        at = self._first(side, program)
        if at is None:
            return b""
        ops = [program[i : i + OP_BYTES] for i in range(0, OP_BYTES * (at + 1), OP_BYTES)]
        for i in reversed(range(len(ops))):
            fewer = b"".join(ops[:i] + ops[i + 1 :])
            if side.run(fewer).visible != self._two.run(fewer).visible:
                del ops[i]
        return b"".join(ops)

    def _first(self, one: Executor, program: bytes) -> int | None:
        """Return the first operation where user space sees something else than on the other."""
        beginnings = prefixes(program)
        if not beginnings:
            return None
        seen, other = (side.run_batch(beginnings, coverage=False) for side in (one, self._two))
        return first_row(seen.visible != other.visible)

    def _explained(self, known: frozenset[str]) -> Executor | None:
        """Return the executor of the profile with all known rules, as far as they go together."""
        names = self._together({rule for key in known for rule in key.split("|")[2].split(",")})
        return self._hybrid(names) if names else None

    def __call__(self, program: bytes) -> Finding | None:
        """Return the first difference of a program, which is cut off there."""
        if alike(self._one, self._two, program):
            return None
        pairs = zip(self._one.steps(program), self._two.steps(program), strict=True)
        differs = ((i, a, b) for i, (a, b) in enumerate(pairs) if a.visible != b.visible)
        row, *steps = next(differs, (-1,))
        if row < 0:  # nothing that has words
            return None
        cut = program[: OP_BYTES * (row + 1)]
        rules = self.explain(cut)
        kind = kind_of(*steps)
        acts = self._acts(cut, rules, row)
        operation = name_of(cut, acts)
        return Finding(
            judge=self.name,
            kind=kind,
            title=f"{kind}: {self._why(rules, operation)}",
            program=cut,
            profile=self._profile,
            setup=self._setup,
            against=self._other,
            rules=rules,
            operation=operation,
            states=tuple(self._states(cut, acts)),
        )

    def same(self, finding: Finding) -> Callable[[bytes], bool]:
        """Test for a difference that the same rules explain."""
        explained = self._hybrid(finding.rules)

        def shows(program: bytes) -> bool:
            if alike(self._one, self._two, program):
                return False
            return explained is None or alike(explained, self._two, program)

        return shows

    def explain(self, program: bytes) -> tuple[str, ...]:
        """Return the rules of the other profile that make its outcome.

        Parameters
        ----------
        program : bytes
            A program whose outcomes differ.

        Returns
        -------
        tuple of str
            One rule if one is enough, the first in the order of profile.hpp; else rules of which
            none can be left out.
        """

        def agrees(names: Sequence[str]) -> bool:
            executor = self._hybrid(tuple(names))
            return executor is not None and alike(executor, self._two, program)

        for rule in self._rules:
            if agrees((rule,)):
                return (rule,)
        left = list(self._rules)
        size = len(left) // 2
        while size:
            for start in reversed(range(0, len(left), size)):
                fewer = left[:start] + left[start + size :]
                if agrees(fewer):
                    left = fewer
            size //= 2
        return tuple(left)

    def _why(self, rules: tuple[str, ...], operation: str) -> str:
        acts = operation.removesuffix("_many")
        if len(rules) == 1 and (rules[0], acts) in _NAMES:
            return _NAMES[rules[0], acts]
        return "; ".join(sentence(rule, self._profile) for rule in rules[:3])

    def _acts(self, program: bytes, rules: tuple[str, ...], last: int) -> int:
        """Return the operation after which entries differ that differ by the rules alone."""
        other = self._hybrid(rules) or self._two
        for i, beginning in enumerate(prefixes(program)):
            hashes = set()
            for side in (self._one, other):
                side.run(beginning)
                hashes.add(side.entries_hash())
            if len(hashes) > 1:
                return i
        return last

    def _states(self, program: bytes, acts: int) -> Iterator[str]:
        """One line for each side: where the rules act, what is answered in the end, the entry."""
        width = max(len(self._profile), len(self._other))
        for profile, executor in ((self._profile, self._one), (self._other, self._two)):
            steps = executor.steps(program)
            shown = [steps[acts]] if acts < len(steps) - 1 else []
            told = [
                f"{step.text.split()[0]}: {step.outcome or 'done'}" for step in [*shown, steps[-1]]
            ]
            yield f"{profile:{width}}  {'   '.join(told)}"


def _named(known: frozenset[str]) -> set[tuple[str, str, str]]:
    """Return (where the difference is seen, rule, operation where it acts) of known findings."""
    named = set()
    for key in known:
        _, kind, rules, operation = key.split("|")
        where = {"lost write": "lost", "lost message": ""}.get(kind, operation)
        named.add((where, rules, operation))
    return named
