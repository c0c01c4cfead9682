"""Greedy decoding in few passes: the catalogue's keys and values are kept, and guesses are verified together."""

import copy
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

from .answers import Answer, Job, Reading
from .attention import ContinuedCache
from .calls import Draft, Generation, Message, Prompt, Stop
from .confidence import Candidate, NameScore, candidates
from .errors import RequestError
from .grammar import Grammar, Vocabulary
from .lockstep import decode_together, lockstep_problem
from .model import BACKEND, Model
from .prefixes import Prefix, PrefixCache, PrefixFiles, run
from .worker import compute

from mlx_lm.models.cache import KVCache, RotatingKVCache, make_prompt_cache, trim_prompt_cache  # isort: skip  (model.py has put the BLAS in place)

logger = logging.getLogger("mlx_router")

# On a CPU with a real BLAS a pass of 17 tokens costs about twice one of a single token; a GPU has less to spare.
DRAFT_LENGTH = {"cpu": 16, "gpu": 8}
BATCH_SIZE = 32
# A batch has fewer rows where their copies of the prefix would take more than this.
BATCH_BYTES = 1024**3
KEPT_CATALOGUES = 8

Key = TypeVar("Key")
Value = TypeVar("Value")


class GreedyDecoder:
    """Decodes by argmax. The prefix of the last few system messages is kept, and guesses save forward passes.

    A pass runs the last token together with up to `draft_length` guessed ones and keeps those that the model would have
    said; the answer is that of plain greedy decoding, up to ties in floating point. With `draft_length` 0 each pass
    makes one token. `files` keeps prefixes on disk too. Safe to call from several threads, also with other models: one
    call computes at a time.
    """

    def __init__(
        self,
        model: Model,
        *,
        draft_length: int | None = None,
        batch_size: int | None = None,
        files: PrefixFiles | None = None,
    ) -> None:
        self.model = model
        self.draft_length = DRAFT_LENGTH[BACKEND.device] if draft_length is None else draft_length
        self.batch_size = BATCH_SIZE if batch_size is None else batch_size
        self.prefixes = PrefixCache(model, files)
        self._names: OrderedDict[tuple[str, ...], list[Candidate]] = OrderedDict()
        self._grammars: OrderedDict[str, Grammar] = OrderedDict()
        self._vocabulary: Vocabulary | None = None
        self._batches: bool | None = None

    def decode(
        self,
        messages: Sequence[Message],
        max_tokens: int,
        *,
        draft: Draft | None = None,
        names: Sequence[str] = (),
        grammar: str = "",
        stop: Stop | None = None,
    ) -> Generation:
        """The model's greedy answer, under a grammar the likeliest that fits it; up to the name where `stop` says so.

        Raises `RequestError` for a prompt that leaves no room in the context, `CatalogueError` for a grammar with
        schemas that can't be expressed.
        """
        start = time.perf_counter()
        prompt = Prompt(tuple(messages), draft, tuple(names), grammar, stop)
        return compute(lambda: self._decode(self._job(0, prompt, max_tokens), start))

    def decode_many(
        self, prompts: Sequence[Prompt], max_tokens: int, progress: Callable[[int], None] | None = None
    ) -> list[Generation | RequestError]:
        """The answers that `decode` gives to each, up to ties in floating point, or its error for a prompt.

        Prompts with the same system message are decoded together, on its prefix or copies of it. `progress` is called
        with the number done.
        """
        found: dict[int, Generation | RequestError] = {}
        jobs: dict[str, list[Job]] = {}
        begun = compute(lambda: [self._begun(number, prompt, max_tokens) for number, prompt in enumerate(prompts)])
        for number, one in enumerate(begun):
            if isinstance(one, RequestError):
                found[number] = one
            else:
                jobs.setdefault(one.prompt.messages[0]["content"], []).append(one)
        for group in jobs.values():
            for batch in self._parts(sorted(group, key=lambda job: len(job.tokens))):
                # Between batches other threads have their turn.
                found.update(compute(partial(self._decode_batch, batch)))
                if progress is not None:
                    progress(len(found))
        return [found[number] for number in range(len(prompts))]

    def _begun(self, number: int, prompt: Prompt, max_tokens: int) -> Job | RequestError:
        try:
            return self._job(number, prompt, max_tokens)
        except RequestError as error:
            return error

    def check(self, prompt: Prompt, max_tokens: int) -> None:
        """Raises `RequestError` for a prompt that leaves no room in the context."""
        self._job(0, prompt, max_tokens)

    def _job(self, number: int, prompt: Prompt, max_tokens: int) -> Job:
        """The prompt's tokens and the beginning of its answer."""
        tokens = self.model.chat.prompt_tokens(prompt.messages)
        limit = self.model.context_length
        if limit is not None and len(tokens) + max_tokens > limit:
            raise RequestError(
                f"the prompt has {len(tokens)} tokens and the answer may have {max_tokens}; "
                f"the model's context is {limit}",
                hint="shorten the request, or take a base with a longer context",
            )
        path = self._grammar(prompt.grammar).begin(max_tokens) if prompt.grammar else None
        names = NameScore(self._candidates(prompt.names))
        answer = Answer(self.model.chat, max_tokens, names, prompt.draft, path, prompt.stop)
        return Job(number, prompt, tokens, answer)

    def _decode(self, job: Job, start: float) -> Generation:
        """Decode one answer alone."""
        answer = job.answer
        cache, cached = self._cache_for(job)
        pending, passes, prefilled = job.tokens[cached:], 0, start
        while not answer.done:
            guess = answer.guess(self.draft_length)
            trims = _can_take_back(cache, len(pending) + len(guess))
            before = None if trims or not guess else copy.deepcopy(cache)
            logits = run(self.model.network, [*pending, *guess], cache, rows=len(guess) + 1)
            right = answer.take(Reading(logits).passes([len(guess) + 1])[0], guess)
            passes += 1
            if passes == 1:
                prefilled = time.perf_counter()
            if right == len(guess):
                pending = answer.output[-1:]
            elif before is None:
                trim_prompt_cache(cache, len(guess) - right)
                pending = answer.output[-1:]
            else:
                # What can't be trimmed is taken from the copy, and the next pass runs what was right once more.
                cache, pending = before, [*pending, *guess[:right], *answer.output[-1:]]
        return answer.generation(job.timings(start, prefilled, passes, cached))

    def _candidates(self, names: tuple[str, ...]) -> list[Candidate]:
        encode = partial(self.model.chat.tokenizer.encode, add_special_tokens=False)
        return _kept(self._names, names, lambda: candidates(names, encode))

    def _grammar(self, text: str) -> Grammar:
        return _kept(self._grammars, text, lambda: Grammar(text, self._make_vocabulary()))

    def _make_vocabulary(self) -> Vocabulary:
        if self._vocabulary is None:
            # Only a pass tells how many logits there are; some models have more of them than tokens.
            logits = run(self.model.network, [0], make_prompt_cache(self.model.network))
            chat = self.model.chat
            self._vocabulary = Vocabulary(chat.tokenizer, sorted(chat.eos_tokens), logits.shape[-1])
        return self._vocabulary

    def _cache_for(self, job: Job) -> tuple[Any, int]:
        """A cache to go on with, and how many of the prompt's tokens it already holds."""
        prefix = self.prefixes.get(job.prompt.messages)
        if not _begins_with(job.tokens, prefix):
            return make_prompt_cache(self.model.network), 0
        return prefix.continued(), len(prefix.tokens)

    def _parts(self, jobs: list[Job]) -> Iterator[list[Job]]:
        """The jobs of one system message in batches of a size that memory allows."""
        prefix = compute(lambda: self.prefixes.get(jobs[0].prompt.messages))
        rows = max(1, min(self.batch_size, BATCH_BYTES // max(1, prefix.nbytes)))
        for first in range(0, len(jobs), rows):
            yield jobs[first : first + rows]

    def _decode_batch(self, jobs: list[Job]) -> dict[int, Generation]:
        """Decode the jobs of one system message together, or one by one where that is not possible."""
        prefix = self.prefixes.get(jobs[0].prompt.messages)
        together = [job for job in jobs if _begins_with(job.tokens, prefix)]
        if len(together) < 2 or not self._can_batch(together, prefix):
            together = []
        numbers = {job.number for job in together}
        alone = [job for job in jobs if job.number not in numbers]
        found = {job.number: self._decode(job, time.perf_counter()) for job in alone}
        if together:
            found |= decode_together(self.model.network, together, prefix, self.draft_length)
        return found

    def _can_batch(self, jobs: list[Job], prefix: Prefix) -> bool:
        """Whether this network can run rows together; found out once, on the first batch."""
        if self._batches is None:
            problem = lockstep_problem(self.model.network, jobs, prefix, self.model.dtype)
            self._batches = problem is None
            if problem is not None:
                logger.info("requests are decoded one by one: %s", problem)
        return self._batches


def _kept(found: OrderedDict[Key, Value], key: Key, make: Callable[[], Value]) -> Value:
    """The value of a key, made if it is missing; the least recently used goes."""
    if key not in found:
        found[key] = make()
        while len(found) > KEPT_CATALOGUES:
            found.popitem(last=False)
    found.move_to_end(key)
    return found[key]


def _begins_with(tokens: list[int], prefix: Prefix) -> bool:
    """Whether a prompt begins with a prefix and goes on; a request may merge with the prefix's last token."""
    size = len(prefix.tokens)
    return 0 < size < len(tokens) and tuple(tokens[:size]) == prefix.tokens


def _can_take_back(cache: Any, tokens: int) -> bool:
    """Whether, after so many more tokens, each layer can still be trimmed; a window that has gone round can't."""
    return all(
        type(layer) in (KVCache, ContinuedCache)
        or (type(layer) is RotatingKVCache and layer.offset + tokens < layer.max_size)
        for layer in cache
    )
