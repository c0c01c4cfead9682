"""What a data check found: findings and summaries as data, and as text for a terminal."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, TypeAlias

from .data import Example, RowError
from .tables import table

Level: TypeAlias = Literal["error", "warning", "note"]

LEVELS: Final[tuple[Level, ...]] = ("error", "warning", "note")
SHOWN = 10
SHOWN_TOOLS = 60

# Every kind of finding: its level, and what its findings have in common.
KINDS: Final[dict[str, tuple[Level, str]]] = {
    "unusable_row": ("error", "rows that can't be used"),
    "no_rows": ("error", "splits without rows"),
    "cut_answer": ("error", "rows longer than max_seq_length: the answer would be cut"),
    "long_answer": ("error", "answers longer than max_tokens: training refuses them"),
    "leak": ("error", "the same request and catalogue in two splits"),
    "conflict": ("warning", "the same request and catalogue with different targets"),
    "no_tool_share": ("warning", "share of no_tool rows"),
    "tool_without_rows": ("warning", "tools without rows"),
    "value_not_in_request": ("warning", "values that are not in the request letter for letter"),
    "leading_because": ("warning", "values that begin with because, since or as"),
    "two_spellings": ("warning", "one value in two spellings"),
    "unknown_reason": ("warning", "reasons without a known code, or not on the catalogue's list"),
    "unnamed_parameter": ("warning", "reasons that should name a parameter"),
    "unknown_parameter": ("warning", "reasons that name what is no parameter"),
    "parameter_order": ("warning", "reasons that name parameters out of order"),
    "idle_alternative": ("warning", "alternatives that say what the target says"),
    "system_text": ("warning", "system texts that differ from the one rendered from the catalogue"),
    "leak_other_catalogue": ("warning", "the same request in two splits, with another catalogue"),
    "near_leak": ("warning", "nearly the same request in two splits"),
    "duplicate": ("warning", "the same row twice in a split"),
    "default_written_out": ("note", "defaults that may be written out without being asked for"),
    "near_duplicate": ("note", "nearly the same request twice in a split"),
    "template": ("note", "rows filled in from templates"),
}


@dataclass(frozen=True)
class Finding:
    """One thing found. `where` is a file with its line, or the split's name if it is about the whole split."""

    level: Level
    code: str
    split: str
    where: str
    message: str


@dataclass(frozen=True)
class Length:
    """A row's length in tokens, all in all and of its answer with the token that ends it."""

    where: str
    tokens: int
    answer_tokens: int


@dataclass(frozen=True)
class SplitSummary:
    """What a split holds. `tools` are rows by gold tool, `longest` is None where lengths were not checked."""

    name: str
    sources: tuple[str, ...]
    rows: int
    unusable: int
    no_tool: int
    template: int
    tools: dict[str, int]
    longest: tuple[Length, ...] | None

    @property
    def no_tool_share(self) -> float | None:
        """Share of the `no_tool` rows; None without rows."""
        return self.no_tool / self.rows if self.rows else None


@dataclass(frozen=True)
class Report:
    """Everything found in some data."""

    splits: tuple[SplitSummary, ...]
    findings: tuple[Finding, ...]

    def count(self, level: Level) -> int:
        """How many findings are of a level."""
        return sum(finding.level == level for finding in self.findings)

    @property
    def failed(self) -> bool:
        """Whether there are errors: exit code 1."""
        return self.count("error") > 0

    @property
    def lengths_checked(self) -> bool:
        """Whether rows were counted in tokens, which takes a model's tokenizer."""
        return any(split.longest is not None for split in self.splits)

    def to_json(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "ok": not self.failed,
            **{f"{level}s": self.count(level) for level in LEVELS},
            "lengths_checked": self.lengths_checked,
            "splits": [{**asdict(split), "no_tool_share": split.no_tool_share} for split in self.splits],
            "findings": [asdict(finding) for finding in self.findings],
        }


@dataclass
class Split:
    """A split's rows as read."""

    name: str
    sources: list[str] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)
    errors: list[RowError] = field(default_factory=list)

    def finding(self, code: str, where: str, message: str) -> Finding:
        """A finding of this split."""
        return Finding(KINDS[code][0], code, self.name, where, message)


def excerpt(text: str, length: int = 60) -> str:
    """The text's beginning on one line, as a literal."""
    return repr(text if len(text) <= length else text[: length - 1] + "…")


def render(report: Report) -> str:
    """The report as text: a table of splits, a table of tools, then the findings by kind."""
    parts = [_splits(report.splits), _tools(report.splits), *_lengths(report)]
    parts += [_findings(report, level) for level in LEVELS if report.count(level)]
    return "\n\n".join([*parts, _verdict(report)])


def _splits(splits: Sequence[SplitSummary]) -> str:
    header = ("split", "rows", "no_tool", "", "template", "unusable", "from")
    return table([header, *(_split_row(split) for split in splits)], left=(0, 6))


def _split_row(split: SplitSummary) -> tuple[str, ...]:
    share = "" if split.no_tool_share is None else f"{split.no_tool_share:.1%}"
    counts = (split.rows, split.no_tool, share, split.template, split.unusable)
    return (split.name, *map(str, counts), ", ".join(split.sources))


def _tools(splits: Sequence[SplitSummary]) -> str:
    names = list(dict.fromkeys(name for split in splits for name in split.tools))
    rows = [(name, *(str(split.tools.get(name, 0)) for split in splits)) for name in names[:SHOWN_TOOLS]]
    text = table([("rows per tool", *(split.name for split in splits)), *rows], left=(0,))
    return f"{text}\n… and {len(names) - SHOWN_TOOLS} more tools" if len(names) > SHOWN_TOOLS else text


def _lengths(report: Report) -> Iterator[str]:
    if not report.lengths_checked:
        yield "lengths were not checked: they need a model's tokenizer (--model)"
        return
    header = ("longest rows", "tokens", "answer")
    lengths = [length for split in report.splits for length in split.longest or ()]
    rows = [(length.where, str(length.tokens), str(length.answer_tokens)) for length in lengths]
    yield table([header, *rows], left=(0,))


def _findings(report: Report, level: Level) -> str:
    lines = [f"{_count(report.count(level), level)}"]
    for code, (_, title) in KINDS.items():
        found = [finding for finding in report.findings if finding.level == level and finding.code == code]
        if found:
            lines.append(f"  {title} ({len(found)}, {code})")
            lines += [f"    {finding.where}: {finding.message}" for finding in found[:SHOWN]]
        if len(found) > SHOWN:
            lines.append(f"    … and {len(found) - SHOWN} more")
    return "\n".join(lines)


def _verdict(report: Report) -> str:
    counts = [_count(report.count(level), level) for level in LEVELS]
    return f"{', '.join(counts[:-1])} and {counts[-1]}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
