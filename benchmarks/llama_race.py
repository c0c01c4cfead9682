"""llama.cpp as a contestant of the routing benchmark: the same weights in float32, its prompt cache and its grammar.

Optional: without `llama-cpp-python` and `gguf` nothing is measured, and every figure is None.

    pip install gguf llama-cpp-python    # compiled for this machine, which takes minutes
"""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlx_router.bench import ROUTER, greedy, shown, times
from mlx_router.calls import Message
from mlx_router.catalogue import Catalogue
from mlx_router.machine import usable_cpus
from mlx_router.model import Model
from mlx_router.prefixes import run
from mlx_router.prompts import RowTokens
from mlx_router.races import Call, Lane, Name, differences, first_token_speedup, speedup
from mlx_router.router import Router

import numpy as np  # isort: skip

LLAMA = "llama.cpp, prompt cache, grammar"
FREE = "llama.cpp, prompt cache"
# Keys and values in 16 bits with flash attention, as llama.cpp takes them by itself.
HALF = "llama.cpp, prompt cache of 16 bits"
# What the names of their figures end in.
ENDS = {LLAMA: "", FREE: "_without_grammar", HALF: "_of_16_bits"}
MEASURES: dict[str, Callable[[Sequence[Call], Sequence[Call]], float]] = {
    "speedup_vs": speedup,
    "first_token_speedup_vs": first_token_speedup,
    "differences_from": differences,
}
NEEDED = ("gguf", "llama_cpp")
# Logits may differ by so much of their spread: the order of sums, in float32.
TOLERANCE = 1e-4

Progress = Callable[[str], None]


@contextmanager
def peer_of(model: Model, progress: Progress, tries: int = 3) -> "Iterator[Peer | None]":
    """llama.cpp with the weights of a model, in a temporary file; None where it can't take part.

    `tries` is by how many requests, and in how many rounds of them, the number of threads is chosen.
    """
    if not all(map(find_spec, NEEDED)):
        progress("llama.cpp is not measured: llama-cpp-python and gguf are not both installed")
        yield None
        return
    from gguf_weights import can_write

    if not can_write(model):
        progress("llama.cpp is not measured: GGUF is written of models like Qwen3 in float32 only")
        yield None
        return
    with TemporaryDirectory() as folder, closing(Peer(model, Path(folder), progress, tries)) as peer:
        yield peer


class Peer:
    """llama.cpp with one model, and contexts that each keep a catalogue."""

    def __init__(self, model: Model, folder: Path, progress: Progress, tries: int) -> None:
        from gguf_weights import write_gguf
        from llama_decoder import Weights

        self.model, self.progress, self.tries = model, progress, tries
        file = write_gguf(model, folder / "model.gguf")
        progress(f"llama.cpp: {file.stat().st_size / 1e6:.1f} MB of GGUF in float32")
        self.weights = Weights(file)
        self.contexts: list[Any] = []
        self.threads: dict[str, dict[str, int]] = {}
        self.logit_difference = 0.0

    def close(self) -> None:
        """Give the memory back."""
        for context in self.contexts:
            context.close()
        self.weights.close()

    @property
    def figures(self) -> dict[str, Any]:
        """How it ran."""
        return {
            "version": version("llama-cpp-python"),
            "dtype": "float32",
            "threads": self.threads,
            "largest_logit_difference": self.logit_difference,
        }

    def lanes(
        self,
        scene: str,
        router: Router,
        requests: Sequence[str],
        catalogue: Catalogue | None = None,
        rows: Sequence[RowTokens] | None = None,
        names: Sequence[str] = tuple(ENDS),
    ) -> list[Lane]:
        """Its lanes in a scene; with rows it says their answers, whatever its own would be."""
        from llama_decoder import Kept, gbnf

        chat = self.model.chat
        messages = [router.prompt(request, catalogue=catalogue).messages for request in requests]
        room = max(len(chat.prompt_tokens(one)) for one in messages) + router.max_tokens
        grammar = gbnf(router.catalogue if catalogue is None else catalogue)

        def call(context: Kept, constrained: bool, number: int) -> Call:
            script = rows[number].tokens[rows[number].prompt_length :] if rows is not None else ()
            decoded = context.decode(messages[number], router.max_tokens, constrained=constrained, script=script)
            return Call.of(decoded)

        def open_context(name: str) -> Kept:
            exact = name == LLAMA
            context = Kept(self.weights, chat, messages[0][0], room, grammar, exact=exact)
            self.contexts.append(context)
            if exact:
                self._check(context, router, messages[0])
            tried = range(len(requests))[: self.tries]
            threads = self._best_threads(f"{scene}: {name}", context, lambda: [call(context, exact, n) for n in tried])
            self.threads.setdefault(scene, {})[name] = threads
            return context

        contexts = {name: open_context(name) for name in names if name != FREE}
        if FREE in names:
            contexts[FREE] = contexts[LLAMA]
        return [Lane(scene, name, partial(call, contexts[name], name == LLAMA)) for name in names]

    def _check(self, context: Any, router: Router, messages: Sequence[Message]) -> None:
        """Make sure that it computes what MLX does, each going on from its own prefix."""
        decoder = greedy(router)
        prompt, prefix = self.model.chat.prompt_tokens(messages), decoder.prefixes.get(messages)
        expected = np.asarray(run(decoder.model.network, prompt[len(prefix.tokens) :], prefix.continued())[0])
        difference = float(np.abs(context.logits(prompt) - expected).max())
        self.logit_difference = max(self.logit_difference, difference)
        assert difference < TOLERANCE * np.ptp(expected), f"llama.cpp's logits differ by {difference}"

    def _best_threads(self, who: str, context: Any, answer: Callable[[], list[Call]]) -> int:
        """The number of threads that answers some requests in the least time; the context takes it.

        The numbers take turns, after a first round that is not counted.
        """
        found: dict[int, list[float]] = {count: [] for count in range(1, usable_cpus() + 1)}
        answer()
        for _ in range(self.tries):
            for count, times_ms in found.items():
                context.use_threads(count)
                times_ms += [call.total_ms for call in answer()]
        medians = {count: statistics.median(times_ms) for count, times_ms in found.items()}
        best = min(medians, key=lambda count: medians[count])
        context.use_threads(best)
        listed = ", ".join(f"{ms:.1f} with {count}" for count, ms in medians.items())
        self.progress(f"{who}: best with {best} thread(s); ms of a call: {listed}")
        return best


def figures(calls: Mapping[Name, Sequence[Call]], scene: str) -> dict[str, Any]:
    """How the router compares with it in a scene; None where it did not take part."""
    router = calls[scene, ROUTER]
    return {
        f"{figure}_llama_cpp{end}": measure(calls[scene, name], router) if (scene, name) in calls else None
        for name, end in ENDS.items()
        for figure, measure in MEASURES.items()
    }


def render(found: Mapping[str, Any]) -> str:
    """These figures as text."""
    lines = []
    for name, end in ENDS.items():
        whole, first, differing = (found[f"{figure}_llama_cpp{end}"] for figure in MEASURES)
        if whole is not None:
            lines.append(f"a call: {times(whole)} {name}")
            lines.append(f"  its first token: {times(first)} that one's; answers that differ: {shown(differing)}")
    return "\n".join(lines)
