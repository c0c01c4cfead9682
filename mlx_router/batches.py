"""Examples as token rows, and the order in which a run sees them: micro-batches in groups of one optimizer update.

Rows with the same catalogue begin with the same tokens. A batch of such rows carries that prefix once, and only the
suffixes, request and answer, row by row.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TypeAlias

import numpy as np

from .confidence import HEAD
from .data import Example
from .errors import ModelError, TrainingError
from .prompts import ChatFormat, RowTokens, Style

PAD_TO = 8
# Rows are sorted by length within so many batches, so that little is padded and the order stays random.
SORTED_BATCHES = 16
SHOWN_ROWS = 10


@dataclass(frozen=True)
class TokenRow:
    """A row's tokens after the prefix; `offset` is where the answer begins in them.

    `named` is how many of the answer's tokens run up to the end of the tool's name.
    """

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    offset: int
    where: str
    named: int = 0

    @property
    def answer_tokens(self) -> int:
        return len(self.suffix) - self.offset

    def whole(self) -> "TokenRow":
        """The same row with nothing shared."""
        return replace(self, prefix=(), suffix=self.prefix + self.suffix, offset=len(self.prefix) + self.offset)


@dataclass(frozen=True)
class Batch:
    """Rows that run together. `prefix` has shape (P,), `suffix` (B, S) padded with 0, `lengths` (B, 3).

    A row of `lengths` is where the answer begins, where the row ends and where the tool's name ends, relative to the
    suffix.
    """

    prefix: np.ndarray
    suffix: np.ndarray
    lengths: np.ndarray
    rows: tuple[str, ...]

    @property
    def answer_tokens(self) -> int:
        """How many tokens the loss falls on."""
        return int((self.lengths[:, 1] - self.lengths[:, 0]).sum())

    def weight(self, name_weight: float) -> float:
        """What the tokens that the loss falls on weigh together, those up to the tool's name `name_weight` each."""
        named = int((self.lengths[:, 2] - self.lengths[:, 0]).sum())
        return self.answer_tokens + (name_weight - 1) * named

    def share(self, rank: int, size: int) -> "Batch":
        """The rows that fall to one of `size` ranks; one silenced row where there are fewer rows than ranks."""
        if rank >= len(self.rows):
            return self.share(0, len(self.rows)).silenced()
        part = slice(rank, None, size)
        return Batch(self.prefix, self.suffix[part], self.lengths[part], self.rows[part])

    def silenced(self) -> "Batch":
        """The same shapes with no token to learn."""
        ends = np.stack([self.lengths[:, 1]] * 3, axis=1)
        return Batch(self.prefix, self.suffix, ends, self.rows)


def token_rows(
    examples: Sequence[Example],
    chat: ChatFormat,
    *,
    style: Style,
    keep_system: bool,
    max_seq_length: int | None,
    max_tokens: int,
    context_length: int | None = None,
) -> list[TokenRow]:
    """Examples as tokens. Raises `TrainingError` naming every row whose answer would be cut or can't be learnt.

    A row has to leave room for `max_tokens` in `context_length`, as routing asks for.
    """
    prefixes: dict[str, list[int]] = {}
    named: dict[str, int] = {}
    rows: list[TokenRow] = []
    problems: list[str] = []
    for example in examples:
        shown = example.as_shown()
        messages = shown.messages(style, keep_system=keep_system)
        system = messages[0]["content"]
        if system not in prefixes:
            prefixes[system] = chat.shared_prefix(messages[0])
        try:
            tokens = chat.row_tokens(messages, shown.answer)
        except ModelError as error:
            problems.append(f"{example.where}: {error.message}")
            continue
        problem = _problem(tokens, max_seq_length, max_tokens, context_length)
        if problem:
            problems.append(f"{example.where}: {problem}")
            continue
        name = example.target.tool
        if name not in named:
            named[name] = len(chat.pieces(f"{HEAD}{name}"))
        rows.append(_token_row(tokens, prefixes[system], example.where, named[name]))
    if problems:
        more = f"\n  … and {len(problems) - SHOWN_ROWS} more" if len(problems) > SHOWN_ROWS else ""
        lines = "\n".join(f"  {problem}" for problem in problems[:SHOWN_ROWS])
        raise TrainingError(
            f"{len(problems)} row(s) can't be trained on:\n{lines}{more}",
            hint="raise max_seq_length or max_tokens, or shorten these rows and their catalogue",
        )
    return rows


def _problem(tokens: RowTokens, max_seq_length: int | None, max_tokens: int, context_length: int | None) -> str | None:
    answer = len(tokens.tokens) - tokens.prompt_length
    if answer < 1:
        return "the loss mask has no token: there is no answer to learn"
    if answer > max_tokens:
        return f"the answer has {answer} tokens; routing stops at max_tokens = {max_tokens}"
    if max_seq_length is not None and len(tokens.tokens) > max_seq_length:
        return f"the row has {len(tokens.tokens)} tokens and would be cut at {max_seq_length}, where the answer is"
    if context_length is not None and tokens.prompt_length + max_tokens > context_length:
        return (
            f"the prompt has {tokens.prompt_length} tokens and the answer may have {max_tokens}; "
            f"the model's context is {context_length}"
        )
    return None


def _token_row(tokens: RowTokens, prefix: list[int], where: str, named: int) -> TokenRow:
    row, size = tokens.tokens, len(prefix)
    if row[:size] != prefix or size >= tokens.prompt_length:
        size = 0
    named = min(named, len(row) - tokens.prompt_length)
    return TokenRow(tuple(row[:size]), tuple(row[size:]), tokens.prompt_length - size, where, named)


# Other rows for those of a batch, by a generator of its own.
Vary: TypeAlias = Callable[[Sequence[TokenRow], Random], Sequence[TokenRow]]


class Plan:
    """The micro-batches of every epoch, the same for the same seed.

    Each epoch sees every row once, and `again` rows of those in `repeated` (by number) once more, or several times
    where there are fewer. `accumulation` micro-batches make one optimizer update; the last update of an epoch may have
    fewer, and is filled up with silenced ones, since the trainer counts micro-batches.
    """

    def __init__(
        self,
        rows: Sequence[TokenRow],
        *,
        batch_size: int,
        accumulation: int,
        seed: int,
        group_by_length: bool = True,
        shared_prefix: bool = True,
        repeated: Sequence[int] = (),
        again: int = 0,
        vary: Vary | None = None,
    ) -> None:
        self.rows = list(rows) if shared_prefix else [row.whole() for row in rows]
        self.batch_size, self.accumulation, self.seed = batch_size, accumulation, seed
        self.group_by_length = group_by_length
        self.repeated, self.again, self.vary = list(repeated), again, vary
        self.micro_batches_per_epoch = len(self._compose(np.random.default_rng(0)))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def updates_per_epoch(self) -> int:
        """Optimizer updates an epoch."""
        return -(-self.micro_batches_per_epoch // self.accumulation)

    def epoch(self, number: int, skip: int = 0) -> Iterator[list[Batch]]:
        """The groups of micro-batches of one epoch, one group an update, without the first `skip`."""
        batches = self._compose(np.random.default_rng([self.seed, number]))
        for start in range(skip * self.accumulation, len(batches), self.accumulation):
            chosen = enumerate(batches[start : start + self.accumulation], start=start)
            group = [make_batch(self._varied(rows, number, at)) for at, rows in chosen]
            yield group + [group[-1].silenced()] * (self.accumulation - len(group))

    def _varied(self, rows: Sequence[TokenRow], epoch: int, at: int) -> Sequence[TokenRow]:
        return self.vary(rows, Random(f"{self.seed} {epoch} {at}")) if self.vary is not None else rows

    def _order(self, random: np.random.Generator) -> list[int]:
        """The numbers of the rows that an epoch sees, in random order."""
        if not self.again:
            return [int(at) for at in random.permutation(len(self.rows))]
        times, rest = divmod(self.again, len(self.repeated))
        more = [*self.repeated * times, *random.permutation(self.repeated)[:rest]]
        return [int(at) for at in random.permutation([*range(len(self.rows)), *more])]

    def _compose(self, random: np.random.Generator) -> list[list[TokenRow]]:
        by_prefix: dict[tuple[int, ...], list[TokenRow]] = {}
        for at in self._order(random):
            by_prefix.setdefault(self.rows[at].prefix, []).append(self.rows[at])
        batches: list[list[TokenRow]] = []
        rest: list[TokenRow] = []
        for rows in by_prefix.values():
            full = len(rows) - len(rows) % self.batch_size if len(by_prefix) > 1 else len(rows)
            batches += self._cut(rows[:full])
            rest += [row.whole() for row in rows[full:]]
        batches += self._cut(rest)
        return [batches[at] for at in random.permutation(len(batches))]

    def _cut(self, rows: list[TokenRow]) -> list[list[TokenRow]]:
        """Batches of rows in random order, of like length where that is asked for."""
        if self.group_by_length:
            size = self.batch_size * SORTED_BATCHES
            chunks = (rows[start : start + size] for start in range(0, len(rows), size))
            rows = [row for chunk in chunks for row in sorted(chunk, key=lambda row: len(row.suffix))]
        return [rows[start : start + self.batch_size] for start in range(0, len(rows), self.batch_size)]


def make_batch(rows: Sequence[TokenRow]) -> Batch:
    """Rows with one prefix as arrays, padded to a multiple of 8 so that few shapes are compiled."""
    longest = max(len(row.suffix) for row in rows)
    # One token more than a multiple: the last one is only ever a target.
    width = 1 + -(-(longest - 1) // PAD_TO) * PAD_TO
    suffix = np.zeros((len(rows), width), np.int32)
    for at, row in enumerate(rows):
        suffix[at, : len(row.suffix)] = row.suffix
    lengths = np.array([[row.offset, len(row.suffix), row.offset + row.named] for row in rows], np.int32)
    return Batch(np.array(rows[0].prefix, np.int32), suffix, lengths, tuple(row.where for row in rows))
