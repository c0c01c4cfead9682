"""Requests that occur again, in their own split or in another, with the same target or with a different one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from .calls import NoTool
from .catalogue import Catalogue
from .data import Example
from .duplicates import clusters
from .findings import Finding, Split, excerpt
from .metrics import same_decision


def repeats(splits: Sequence[Split]) -> Iterator[Finding]:
    """One finding at most for what a row repeats of its own split, and one for what it repeats of the others."""
    rows = [(split, example) for split in splits for example in split.examples]
    numbers = clusters([example.request for _, example in rows])
    seen = {split.name: _Seen(split) for split in splits}
    for cluster, (split, example) in zip(numbers, rows, strict=True):
        yield from _within(seen[split.name], example, cluster)
        others = [other for other in seen.values() if other.split is not split]
        yield from _across(split, others, example, cluster)
        seen[split.name].add(example, cluster)


@dataclass
class _Seen:
    """The first rows of a split by what they have in common with later ones."""

    split: Split
    same: dict[tuple[str, Catalogue], list[Example]] = field(default_factory=dict)
    request: dict[str, Example] = field(default_factory=dict)
    near: dict[int, Example] = field(default_factory=dict)
    near_same_catalogue: dict[tuple[int, Catalogue], Example] = field(default_factory=dict)

    def add(self, example: Example, cluster: int) -> None:
        same = self.same.setdefault((example.request, example.catalogue), [])
        # Of rows that agree the first is enough.
        if not any(_agree(other, example) for other in same):
            same.append(example)
        self.request.setdefault(example.request, example)
        self.near.setdefault(cluster, example)
        self.near_same_catalogue.setdefault((cluster, example.catalogue), example)


def _within(seen: _Seen, example: Example, cluster: int) -> Iterator[Finding]:
    same = seen.same.get((example.request, example.catalogue), [])
    near = seen.near_same_catalogue.get((cluster, example.catalogue))
    shown, finding = excerpt(example.request), seen.split.finding
    if different := [other for other in same if not _agree(other, example)]:
        yield finding("conflict", example.where, f"{shown} has another target at {different[0].where}")
    elif same:
        yield finding("duplicate", example.where, f"{shown} stands at {same[0].where} too")
    elif near is not None:
        yield finding("near_duplicate", example.where, f"{shown} is near {near.where}: {excerpt(near.request)}")


def _across(split: Split, others: Sequence[_Seen], example: Example, cluster: int) -> Iterator[Finding]:
    shown = excerpt(example.request)
    key = (example.request, example.catalogue)
    same = [(other.split, other.same[key][0]) for other in others if key in other.same]
    requests = [(other.split, other.request[example.request]) for other in others if example.request in other.request]
    near = [(other.split, other.near[cluster]) for other in others if cluster in other.near]
    if same:
        other, first = same[0]
        target = "" if _agree(first, example) else ", with another target"
        yield split.finding("leak", example.where, f"{shown} is in {other.name} at {first.where}{target}")
    elif requests:
        other, first = requests[0]
        yield split.finding("leak_other_catalogue", example.where, f"{shown} is in {other.name} at {first.where}")
    elif near:
        other, first = near[0]
        message = f"{shown} is near one in {other.name}, {first.where}: {excerpt(first.request)}"
        yield split.finding("near_leak", example.where, message)


def _agree(one: Example, other: Example) -> bool:
    """Whether two rows of one request teach the same, codes of reasons included."""
    if isinstance(one.target, NoTool) and isinstance(other.target, NoTool):
        return one.target.code == other.target.code
    return any(same_decision(other.target, target) for target in (one.target, *one.alternatives)) or any(
        same_decision(one.target, target) for target in other.alternatives
    )
