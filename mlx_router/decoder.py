"""Greedy decoding with the catalogue's keys and values kept between requests."""

import copy
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .calls import Generation, Message, Timings
from .errors import RequestError
from .model import Model

import mlx.core as mx  # isort: skip  (model.py has put the BLAS in place)
from mlx_lm.models.cache import make_prompt_cache  # isort: skip

PREFILL_CHUNK = 512
KEPT_PREFIXES = 8


@dataclass(frozen=True)
class Prefix:
    """A system message's tokens and the model's caches after them."""

    tokens: tuple[int, ...]
    cache: Any


class GreedyDecoder:
    """Decodes by plain argmax, one token a forward pass. The prefix of the last few system messages is kept.

    Safe to call from several threads; calls run one after the other.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self._prefixes: OrderedDict[str, Prefix] = OrderedDict()
        self._lock = threading.Lock()

    def decode(self, messages: Sequence[Message], max_tokens: int) -> Generation:
        """The model's greedy answer. Raises `RequestError` for a prompt that leaves no room in the context."""
        prompt = self.model.chat.prompt_tokens(messages)
        limit = self.model.context_length
        if limit is not None and len(prompt) + max_tokens > limit:
            raise RequestError(
                f"the prompt has {len(prompt)} tokens and the answer may have {max_tokens}; "
                f"the model's context is {limit}",
                hint="shorten the request, or take a base with a longer context",
            )
        with self._lock:
            return self._decode(messages, prompt, max_tokens)

    def _decode(self, messages: Sequence[Message], prompt: list[int], max_tokens: int) -> Generation:
        start = time.perf_counter()
        cache, cached = self._cache_for(messages, prompt)
        logits = self._prefill(prompt[cached:], cache)
        token = _argmax(logits)
        prefilled = time.perf_counter()
        output: list[int] = []
        passes = 1
        while token not in self.model.chat.eos_tokens and len(output) < max_tokens:
            output.append(token)
            if len(output) == max_tokens:
                break
            token = _argmax(self._forward([token], cache))
            passes += 1
        end = time.perf_counter()
        timings = Timings(
            total_ms=(end - start) * 1e3,
            prefill_ms=(prefilled - start) * 1e3,
            decode_ms=(end - prefilled) * 1e3,
            prompt_tokens=len(prompt),
            cached_tokens=cached,
            output_tokens=len(output),
            forward_passes=passes,
        )
        finished = token in self.model.chat.eos_tokens
        return Generation(self.model.chat.tokenizer.decode(output), finished, timings)

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
            self._prefill(tokens, cache)
            mx.eval([layer.state for layer in cache])
        return Prefix(tuple(tokens), cache)

    def _prefill(self, tokens: list[int], cache: Any) -> mx.array:
        """Logits (V,) after the last token; long prompts go through in chunks to bound memory."""
        while len(tokens) > PREFILL_CHUNK:
            self._forward(tokens[:PREFILL_CHUNK], cache)
            mx.eval([layer.state for layer in cache])
            tokens = tokens[PREFILL_CHUNK:]
        return self._forward(tokens, cache)

    def _forward(self, tokens: list[int], cache: Any) -> mx.array:
        logits: mx.array = self.model.network(mx.array([tokens]), cache=cache)
        return logits[0, -1]


def _argmax(logits: mx.array) -> int:
    found: Any = mx.argmax(logits).item()
    return int(found)
