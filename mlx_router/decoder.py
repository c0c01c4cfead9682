"""Greedy decoding in few passes: the catalogue's keys and values are kept, and guesses are verified together."""

import copy
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from .calls import Draft, Generation, Message, Timings
from .confidence import Candidate, NameScore, candidates, scores
from .errors import RequestError
from .model import BACKEND, Model

import mlx.core as mx  # isort: skip  (model.py has put the BLAS in place)
from mlx_lm.models.cache import KVCache, RotatingKVCache, make_prompt_cache, trim_prompt_cache  # isort: skip

PREFILL_CHUNK = 512
# On a CPU with a real BLAS a pass of 17 tokens costs about twice one of a single token; a GPU has less to spare.
DRAFT_LENGTH = {"cpu": 16, "gpu": 8}
KEPT_PREFIXES = 8


@dataclass(frozen=True)
class Prefix:
    """A system message's tokens and the model's caches after them."""

    tokens: tuple[int, ...]
    cache: Any


class GreedyDecoder:
    """Decodes by argmax. The prefix of the last few system messages is kept, and guesses save forward passes.

    A pass runs the last token together with up to `draft_length` guessed ones and keeps those that the model would have
    said; the answer is that of plain greedy decoding, up to ties in floating point. With `draft_length` 0, or a cache
    that can't be trimmed, each pass makes one token. Safe to call from several threads; calls run one after the other.
    """

    def __init__(self, model: Model, *, draft_length: int | None = None) -> None:
        self.model = model
        self.draft_length = DRAFT_LENGTH[BACKEND.device] if draft_length is None else draft_length
        self._prefixes: OrderedDict[str, Prefix] = OrderedDict()
        self._names: dict[tuple[str, ...], list[Candidate]] = {}
        self._lock = threading.Lock()

    def decode(
        self,
        messages: Sequence[Message],
        max_tokens: int,
        *,
        draft: Draft | None = None,
        names: Sequence[str] = (),
    ) -> Generation:
        """The model's greedy answer. Raises `RequestError` for a prompt that leaves no room in the context."""
        start = time.perf_counter()
        prompt = self.model.chat.prompt_tokens(messages)
        limit = self.model.context_length
        if limit is not None and len(prompt) + max_tokens > limit:
            raise RequestError(
                f"the prompt has {len(prompt)} tokens and the answer may have {max_tokens}; "
                f"the model's context is {limit}",
                hint="shorten the request, or take a base with a longer context",
            )
        with self._lock:
            name = NameScore(self._candidates(tuple(names)))
            return self._decode(messages, prompt, max_tokens, draft, name, start)

    def _decode(
        self,
        messages: Sequence[Message],
        prompt: list[int],
        max_tokens: int,
        draft: Draft | None,
        name: NameScore,
        start: float,
    ) -> Generation:
        cache, cached = self._cache_for(messages, prompt)
        pending, passes, prefilled, ended = prompt[cached:], 0, start, False
        output: list[int] = []
        probabilities: list[float] = []
        while not ended and len(output) < max_tokens:
            room = min(self.draft_length, max_tokens - len(output) - 1)
            guess = self._guess(draft, output, room) if draft is not None and room > 0 else []
            if guess and not _can_take_back(cache, len(pending) + len(guess)):
                guess = []
            said, logits = self._verify(pending, guess, cache)
            passes += 1
            if passes == 1:
                prefilled = time.perf_counter()
            end = next((at for at, token in enumerate(said) if token in self.model.chat.eos_tokens), None)
            ended = end is not None
            probabilities += _probabilities(logits, said[:end])
            for at, token in enumerate(said[:end]):
                name.follow(token, partial(_logits, logits[at]))
            output += said[:end]
            pending = said[-1:]
        finish = time.perf_counter()
        timings = Timings(
            total_ms=(finish - start) * 1e3,
            prefill_ms=(prefilled - start) * 1e3,
            decode_ms=(finish - prefilled) * 1e3,
            prompt_tokens=len(prompt),
            cached_tokens=cached,
            output_tokens=len(output),
            forward_passes=passes,
        )
        decode = self.model.chat.tokenizer.decode
        return Generation(decode(output), ended, timings, scores(name, output, probabilities, decode))

    def _candidates(self, names: tuple[str, ...]) -> list[Candidate]:
        if names not in self._names:
            # A router has one catalogue, an evaluation may have thousands.
            if len(self._names) >= KEPT_PREFIXES:
                self._names.clear()
            encode = partial(self.model.chat.tokenizer.encode, add_special_tokens=False)
            self._names[names] = candidates(names, encode)
        return self._names[names]

    def _guess(self, draft: Draft, output: list[int], room: int) -> list[int]:
        """The drafted continuation as tokens, at most `room` of them."""
        encode = self.model.chat.tokenizer.encode
        text = self.model.chat.tokenizer.decode(output)
        continuation = draft(text)
        if not continuation:
            return []
        whole = encode(text + continuation, add_special_tokens=False)
        if whole[: len(output)] == output:
            return whole[len(output) :][:room]
        return encode(continuation, add_special_tokens=False)[:room]

    def _verify(self, pending: list[int], guess: list[int], cache: Any) -> tuple[list[int], mx.array]:
        """Run the pending tokens and a guess; return the guess as far as the model says the same, and one token more.

        The logits (T, V) are those that the returned tokens were taken from. The cache then holds all but the last.
        """
        logits = self._run([*pending, *guess], cache, rows=len(guess) + 1)
        said: Any = mx.argmax(logits, axis=-1).tolist()
        right = next((at for at, token in enumerate(guess) if token != said[at]), len(guess))
        if right < len(guess):
            trim_prompt_cache(cache, len(guess) - right)
        return [int(token) for token in said[: right + 1]], logits

    def _cache_for(self, messages: Sequence[Message], prompt: list[int]) -> tuple[Any, int]:
        """A cache to go on with, and how many of the prompt's tokens it already holds."""
        system = messages[0]["content"]
        prefix = self._prefixes.get(system)
        if prefix is None:
            prefix = self._make_prefix(messages)
            self._prefixes[system] = prefix
            while len(self._prefixes) > KEPT_PREFIXES:
                self._prefixes.popitem(last=False)
        self._prefixes.move_to_end(system)
        size = len(prefix.tokens)
        if size == 0 or size >= len(prompt) or tuple(prompt[:size]) != prefix.tokens:
            return make_prompt_cache(self.model.network), 0
        # A copy is right for every kind of cache; some can't be trimmed back to the prefix.
        return copy.deepcopy(prefix.cache), size

    def _make_prefix(self, messages: Sequence[Message]) -> Prefix:
        """Run what all prompts of this system message begin with."""
        tokens = self.model.chat.shared_prefix(messages[0])
        cache = make_prompt_cache(self.model.network)
        if tokens:
            self._run(tokens, cache)
            mx.eval([layer.state for layer in cache])
        return Prefix(tuple(tokens), cache)

    def _run(self, tokens: list[int], cache: Any, rows: int = 1) -> mx.array:
        """Logits (rows, V) after each of the last tokens; long prompts go through in chunks, to bound memory."""
        while len(tokens) >= PREFILL_CHUNK + rows:
            self.model.network(mx.array([tokens[:PREFILL_CHUNK]]), cache=cache)
            mx.eval([layer.state for layer in cache])
            tokens = tokens[PREFILL_CHUNK:]
        logits: mx.array = self.model.network(mx.array([tokens]), cache=cache)
        return logits[0, -rows:]


def _can_take_back(cache: Any, tokens: int) -> bool:
    """Whether, after so many more tokens, each layer can still be trimmed; a window that has gone round can't."""
    return all(
        type(layer) is KVCache or (type(layer) is RotatingKVCache and layer.offset + tokens < layer.max_size)
        for layer in cache
    )


def _probabilities(logits: mx.array, tokens: list[int]) -> list[float]:
    """The probability of each token at its row of the logits (T, V)."""
    if not tokens:
        return []
    rows = logits[: len(tokens)].astype(mx.float32)
    taken = mx.take_along_axis(rows, mx.array(tokens)[:, None], axis=-1)[:, 0]
    found: Any = mx.exp(taken - mx.logsumexp(rows, axis=-1)).tolist()
    return [float(value) for value in found]


def _logits(row: mx.array, tokens: Sequence[int]) -> list[float]:
    found: Any = row[mx.array(list(tokens))].astype(mx.float32).tolist()
    return [float(value) for value in found]
