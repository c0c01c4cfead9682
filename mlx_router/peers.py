"""mlx-lm's own ways of answering, behind the router's seam, so that they can be timed beside it on the same prompts."""

import copy
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

from .blas import set_threads
from .calls import Draft, Generation, Message, Timings
from .model import ONE_THREAD_BELOW, parameter_counts, resolve_dtype
from .prefixes import run, settle
from .prompts import ChatFormat

import mlx.core as mx  # isort: skip  (model.py has put the BLAS in place)
from mlx_lm import batch_generate, generate, load  # isort: skip
from mlx_lm.generate import generation_stream  # isort: skip
from mlx_lm.models.cache import make_prompt_cache  # isort: skip


class MlxLmDecoder:
    """`mlx_lm.generate` as a decoder; with `prompt_cache` it goes on from a copy of the catalogue's prompt cache.

    The times are those of the function with what its user would do himself: to make the prompt's tokens and to copy
    the cache. `network` may be any that mlx-lm runs.
    """

    def __init__(self, network: Any, chat: ChatFormat, *, prompt_cache: bool = False) -> None:
        self.network = network
        self.chat = chat
        self.prompt_cache = prompt_cache
        self._prefixes: dict[str, tuple[list[int], Any]] = {}

    def decode(
        self,
        messages: Sequence[Message],
        max_tokens: int,
        *,
        draft: Draft | None = None,
        names: Sequence[str] = (),
        grammar: str = "",
        **unused: Any,
    ) -> Generation:
        """The answer; drafts and names are not used, and there is no grammar."""
        assert not grammar, "mlx-lm decodes without a grammar"
        start = time.perf_counter()
        tokens = self.chat.prompt_tokens(messages)
        prompt, options = tokens, {}
        if self.prompt_cache:
            prefix, cache = self._prefix(messages[0])
            assert tokens[: len(prefix)] == prefix and len(prefix) < len(tokens)
            prompt, options = tokens[len(prefix) :], {"prompt_cache": copy.deepcopy(cache)}
        first: list[float] = []
        sampler = _CountingArgmax()

        def progress(done: int, total: int) -> None:
            # mlx-lm's last report comes when the first token is there.
            if done == total and total:
                first[:] = [time.perf_counter()]

        text: str = generate(
            self.network,
            self.chat.tokenizer,
            prompt,
            max_tokens=max_tokens,
            sampler=sampler,
            prompt_progress_callback=progress,
            **options,
        )
        finish = time.perf_counter()
        # It has begun one token more; whoever is timed next must not wait for that.
        mx.synchronize(generation_stream)
        timings = Timings(
            total_ms=(finish - start) * 1e3,
            prefill_ms=(first[0] - start) * 1e3,
            decode_ms=(finish - first[0]) * 1e3,
            prompt_tokens=len(tokens),
            cached_tokens=len(tokens) - len(prompt),
            output_tokens=sampler.steps - 1,
            forward_passes=sampler.steps,
        )
        return Generation(text, sampler.steps <= max_tokens, timings)

    def answer_batch(self, prompts: Sequence[Sequence[Message]], max_tokens: int | list[int]) -> list[str]:
        """The answers of `mlx_lm.batch_generate`, on copies of the catalogue's prompt cache where that is wanted.

        `max_tokens` may be given for each.
        """
        tokens = [self.chat.prompt_tokens(messages) for messages in prompts]
        caches = None
        if self.prompt_cache:
            prefixes = [self._prefix(messages[0]) for messages in prompts]
            tokens = [row[len(prefix) :] for row, (prefix, _) in zip(tokens, prefixes, strict=True)]
            caches = [copy.deepcopy(cache) for _, cache in prefixes]
        found = batch_generate(self.network, self.chat.tokenizer, tokens, prompt_caches=caches, max_tokens=max_tokens)
        return list(found.texts)

    def _prefix(self, system: Message) -> tuple[list[int], Any]:
        """The system message's tokens and the prompt cache after them, run once."""
        content = system["content"]
        if content not in self._prefixes:
            tokens = self.chat.shared_prefix(system)
            cache = make_prompt_cache(self.network)
            run(self.network, tokens, cache)
            settle(cache)
            self._prefixes[content] = (tokens, cache)
        return self._prefixes[content]


class _CountingArgmax:
    """mlx-lm's default sampler, which also counts the passes that it makes after the prompt's beginning."""

    def __init__(self) -> None:
        self.steps = 0

    def __call__(self, logprobs: mx.array) -> mx.array:
        self.steps += 1
        return mx.argmax(logprobs, axis=-1)


def load_with_mlx_lm(base: str, adapter: str | None) -> tuple[Any, ChatFormat]:
    """A model as mlx-lm loads it, in the number type and with the threads that the router's own loader takes."""
    with redirect_stdout(StringIO()):
        network, tokenizer, *_ = load(base, adapter_path=adapter)
    network.set_dtype(getattr(mx, resolve_dtype("auto")))
    if parameter_counts(network)[1] < ONE_THREAD_BELOW:
        set_threads(1)
    return network, ChatFormat(tokenizer, sorted(tokenizer.eos_token_ids))
