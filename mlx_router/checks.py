"""What is wrong with data, before anything is trained on it: findings, as data, over all splits at once."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

from .calls import DEFAULT_MAX_TOKENS, NO_TOOL
from .catalogue import Catalogue
from .data import Example, scan, with_shortlist
from .duplicates import fold
from .findings import KINDS, LEVELS, Finding, Length, Report, Split, SplitSummary, excerpt
from .prompts import ChatFormat, Style, system_message
from .repeats import repeats
from .rules import breaches, invented
from .splits import Source

# The share of `no_tool` rows in training below which a router learns to call always, and above which to hedge.
NO_TOOL_SHARE = (0.10, 0.20)
LONGEST_SHOWN = 3
# Text may be cut into tokens in another way beside its neighbours; an estimate is off by no more than this.
ESTIMATE_MARGIN = 16


@dataclass(frozen=True)
class Limits:
    """What rows are measured with: the model's chat format, the prompt's form, and the longest row and answer.

    With a `shortlist` the prompt shows so many tools.
    """

    chat: ChatFormat | None = None
    style: Style = "signature"
    keep_system: bool = False
    max_seq_length: int | None = None
    max_tokens: int = DEFAULT_MAX_TOKENS
    shortlist: int | None = None


def check(sources: Sequence[Source], default: Catalogue | None = None, limits: Limits | None = None) -> Report:
    """Look at all sources together. `default` is the catalogue of rows that have none of their own.

    Raises `DataError` where a source can't be read at all; rows that can't be used are findings.
    """
    limits = limits or Limits()
    splits = _read(sources, default)
    findings: list[Finding] = []
    summaries = []
    for split in splits:
        lengths = _lengths(split, limits)
        findings += [*_unusable(split), *_shares(split), *_rules(split), *_templates(split)]
        findings += [*_system_texts(split, limits), *_too_long(split, lengths, limits)]
        summaries.append(_summary(split, lengths if limits.chat is not None else None))
    findings += [*repeats(splits), *_spellings(splits)]
    codes = list(KINDS)
    findings.sort(key=lambda finding: (LEVELS.index(finding.level), codes.index(finding.code)))
    return Report(tuple(summaries), tuple(findings))


def _read(sources: Iterable[Source], default: Catalogue | None) -> list[Split]:
    splits: dict[str, Split] = {}
    for source in sources:
        split = splits.setdefault(source.split, Split(source.split))
        examples, errors = scan(source.path, default)
        split.sources.append(source.path)
        split.examples += examples
        split.errors += errors
    return list(splits.values())


def _summary(split: Split, lengths: Sequence[Length] | None) -> SplitSummary:
    tools = Counter(example.target.tool for example in split.examples)
    longest = None if lengths is None else sorted(lengths, key=lambda length: -length.tokens)[:LONGEST_SHOWN]
    return SplitSummary(
        name=split.name,
        sources=tuple(split.sources),
        rows=len(split.examples),
        unusable=len(split.errors),
        no_tool=tools[NO_TOOL],
        template=sum(example.template for example in split.examples),
        tools={name: tools[name] for name in [*_tools(split), NO_TOOL]},
        longest=None if longest is None else tuple(longest),
    )


def _tools(split: Split) -> list[str]:
    catalogues = dict.fromkeys(example.catalogue for example in split.examples)
    return list(dict.fromkeys(tool.name for catalogue in catalogues for tool in catalogue))


def _unusable(split: Split) -> Iterator[Finding]:
    for error in split.errors:
        yield split.finding("unusable_row", error.where, error.message)
    if not split.examples and not split.errors:
        yield split.finding("no_rows", split.name, f"{', '.join(split.sources)} has no rows")


def _shares(split: Split) -> Iterator[Finding]:
    rows = len(split.examples)
    if rows == 0:
        return
    tools = Counter(example.target.tool for example in split.examples)
    share = tools[NO_TOOL] / rows
    low, high = NO_TOOL_SHARE
    if split.name not in ("valid", "test") and not low <= share <= high:
        effect = "a router learns to call always" if share < low else "a router learns to hedge"
        yield split.finding(
            "no_tool_share", split.name, f"{share:.1%} of the rows; outside {low:.0%} to {high:.0%} {effect}"
        )
    for name in _tools(split):
        if not tools[name]:
            yield split.finding("tool_without_rows", split.name, f"{name} has no rows")


def _rules(split: Split) -> Iterator[Finding]:
    for example in split.examples:
        yield from (split.finding(breach.code, example.where, breach.message) for breach in breaches(example))


def _templates(split: Split) -> Iterator[Finding]:
    found = [example for example in split.examples if example.template]
    if found:
        message = f"{len(found)} of {len(split.examples)} rows, the first at {found[0].where}"
        yield split.finding("template", split.name, f"{message}; numbers from them say little about people's requests")


def _system_texts(split: Split, limits: Limits) -> Iterator[Finding]:
    """Rows whose own system text is not what they are trained with; none where it is kept."""
    rendered: dict[Catalogue, list[str]] = {}
    for example in split.examples:
        if example.system is None or limits.keep_system:
            continue
        if example.catalogue not in rendered:
            rendered[example.catalogue] = [system_message(example.catalogue, style) for style in get_args(Style)]
        if example.system not in rendered[example.catalogue]:
            at = _first_difference(example.system, rendered[example.catalogue][0])
            shown = excerpt(example.system[max(0, at - 20) :])
            yield split.finding("system_text", example.where, f"differs from character {at + 1} on: {shown}")


def _first_difference(one: str, other: str) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (left, right) in pairs if left != right), min(len(one), len(other)))


def _lengths(split: Split, limits: Limits) -> list[Length]:
    """The lengths of the longest rows and of all that come near a limit; the others' are only estimated.

    Raises `ModelError` for a chat template that can't be trained with.
    """
    chat = limits.chat
    if chat is None:
        return []
    examples = with_shortlist(split.examples, limits.shortlist)
    estimates = _estimates(examples, chat, limits)
    longest = sorted(range(len(estimates)), key=lambda row: -sum(estimates[row]))[:LONGEST_SHOWN]
    most = math.inf if limits.max_seq_length is None else limits.max_seq_length - ESTIMATE_MARGIN
    near = [
        row
        for row, (prompt, answer) in enumerate(estimates)
        if prompt + answer > most or answer > limits.max_tokens - ESTIMATE_MARGIN
    ]
    lengths = []
    for example in (examples[row].as_shown() for row in sorted({*longest, *near})):
        messages = example.messages(limits.style, keep_system=limits.keep_system)
        row_tokens = chat.row_tokens(messages, example.answer)
        total = len(row_tokens.tokens)
        lengths.append(Length(example.where, total, total - row_tokens.prompt_length))
    return lengths


def _estimates(examples: Sequence[Example], chat: ChatFormat, limits: Limits) -> list[tuple[int, int]]:
    """About how many tokens prompts and answers have. A system text is encoded once instead of once a row."""
    systems: dict[str, int] = {}
    found = []
    for example in (row.as_shown() for row in examples):
        system, user = example.messages(limits.style, keep_system=limits.keep_system)
        if system["content"] not in systems:
            systems[system["content"]] = len(chat.prompt_tokens((system, {"role": "user", "content": "?"})))
        request, answer = (
            len(chat.tokenizer.encode(text, add_special_tokens=False)) for text in (user["content"], example.answer)
        )
        found.append((systems[system["content"]] + request, answer + 1))
    return found


def _too_long(split: Split, lengths: Iterable[Length], limits: Limits) -> Iterator[Finding]:
    for length in lengths:
        if limits.max_seq_length is not None and length.tokens > limits.max_seq_length:
            yield split.finding("cut_answer", length.where, f"{length.tokens} tokens; {limits.max_seq_length} fit")
        if length.answer_tokens > limits.max_tokens:
            message = f"the answer has {length.answer_tokens} tokens; {limits.max_tokens} fit"
            yield split.finding("long_answer", length.where, message)


def _spellings(splits: Sequence[Split]) -> Iterator[Finding]:
    """Values that rows spell in their own way instead of copying, and not always alike."""
    first: dict[tuple[str, str, str], tuple[str, str]] = {}
    for split in splits:
        for example in split.examples:
            for text in invented(example):
                key = (example.target.tool, text.where, fold(text.value))
                value, where = first.setdefault(key, (text.value, example.where))
                if value != text.value:
                    message = f"{text.where} is {text.value!r} here and {value!r} at {where}"
                    yield split.finding("two_spellings", example.where, message)
