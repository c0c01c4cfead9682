"""llama.cpp's own way of answering: a context that keeps the catalogue's keys and values, greedy, with its grammar.

The loop is that of llama.cpp's own tools: the rest of the prompt in one pass, then a token a pass. The likeliest token
is checked against the grammar, and only where it does not fit is the grammar applied to the whole vocabulary.
"""

import ctypes
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
from llama_cpp.llama_grammar import SchemaConverter

from mlx_router.calls import NO_TOOL, Generation, Message, Timings
from mlx_router.catalogue import Catalogue
from mlx_router.confidence import HEAD
from mlx_router.prompts import ChatFormat

# A context's size is a multiple of this.
CELLS = 256
ERROR_LEVEL = 4


@llama_cpp.llama_log_callback
def _log(level: int, text: bytes, user_data: Any) -> None:
    """Errors alone are worth a line; llama.cpp says much else."""
    if level == ERROR_LEVEL:
        print(text.decode(errors="replace"), end="", flush=True)


def gbnf(catalogue: Catalogue) -> str:
    """The catalogue's answers as llama.cpp's grammar: its converter's rules of each tool's arguments, compact.

    What all answers begin with stands once, in front of the alternatives.
    """
    converter = SchemaConverter(prop_order={}, allow_fetch=False, dotall=False, raw_pattern=False)
    calls = []
    for number, tool in enumerate(catalogue):
        schema = converter.resolve_refs(json.loads(json.dumps(tool.parameters)), f"tool{number}")
        rule = converter.visit(schema, f"arguments-{number}")
        calls.append(_literal(f'{tool.name}","arguments":') + f" {rule}")
    reason = converter.visit({"type": "string", "minLength": 1}, "reason")
    calls.append(_literal(f'{NO_TOOL}","reason":') + f" {reason}")
    root = f"root ::= {_literal(HEAD)} ({' | '.join(calls)}) {_literal('}')}"
    # Its white space is left out: the answers are compact.
    rules = [line for line in converter.format_grammar().split("\n") if not line.startswith("space ::=")]
    return "\n".join([root, 'space ::= ""', *rules])


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


class Weights:
    """A GGUF file that llama.cpp has loaded."""

    def __init__(self, file: Path) -> None:
        llama_cpp.llama_log_set(_log, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        self.model = llama_cpp.llama_model_load_from_file(str(file).encode(), llama_cpp.llama_model_default_params())
        assert self.model, f"llama.cpp can't load {file}"
        self.vocabulary = llama_cpp.llama_model_get_vocab(self.model)
        self.size = llama_cpp.llama_vocab_n_tokens(self.vocabulary)

    def close(self) -> None:
        """Give the memory back."""
        llama_cpp.llama_model_free(self.model)


class Kept:
    """A context that keeps a system message's tokens run, and answers the requests after it.

    `room` is how many tokens prompt and answer may have. Where it is `exact`, keys, values and attention are float32,
    as the weights are; else they are what llama.cpp takes by itself, 16 bits and its flash attention.
    """

    def __init__(
        self, weights: Weights, chat: ChatFormat, system: Message, room: int, grammar: str, *, exact: bool
    ) -> None:
        self.weights, self.chat = weights, chat
        options = llama_cpp.llama_context_default_params()
        options.n_ctx = options.n_batch = -(-room // CELLS) * CELLS
        if exact:
            # Its flash attention adds up values in 16 bits, whatever type they are kept in.
            options.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
            options.type_k = options.type_v = llama_cpp.GGML_TYPE_F32
        options.no_perf = True
        self.context = llama_cpp.llama_init_from_model(weights.model, options)
        assert self.context, "llama.cpp can't make a context"
        self.memory = llama_cpp.llama_get_memory(self.context)
        self.grammar = llama_cpp.llama_sampler_init_grammar(weights.vocabulary, grammar.encode(), b"root")
        assert self.grammar, f"llama.cpp can't read the grammar:\n{grammar}"
        self.prefix = chat.shared_prefix(system)
        self._run(self.prefix)

    def close(self) -> None:
        """Give the memory back."""
        llama_cpp.llama_sampler_free(self.grammar)
        llama_cpp.llama_free(self.context)

    def use_threads(self, count: int) -> None:
        """Run with so many threads from now on."""
        llama_cpp.llama_set_n_threads(self.context, count, count)

    def logits(self, tokens: Sequence[int]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """The logits after these tokens (V,), going on from the prefix; they are overwritten by the next pass."""
        size = len(self.prefix)
        assert list(tokens[:size]) == self.prefix and size < len(tokens)
        llama_cpp.llama_memory_seq_rm(self.memory, 0, size, -1)
        return self._run(tokens[size:])

    def decode(
        self, messages: Sequence[Message], max_tokens: int, *, constrained: bool, script: Sequence[int] = ()
    ) -> Generation:
        """The greedy answer. With a script its tokens take the likeliest ones' places, as soon as these are found."""
        start = time.perf_counter()
        tokens = self.chat.prompt_tokens(messages)
        grammar = llama_cpp.llama_sampler_clone(self.grammar) if constrained else None
        logits = self.logits(tokens)
        output: list[int] = []
        first = start
        while True:
            token = int(logits.argmax())
            if script:
                token = script[len(output)]
            if grammar is not None:
                token = self._allowed(grammar, token, logits)
                assert not script or token == script[len(output)], "the grammar refuses what the script says"
                llama_cpp.llama_sampler_accept(grammar, token)
            if not output:
                first = time.perf_counter()
            output.append(token)
            if token in self.chat.eos_tokens or len(output) >= max_tokens:
                break
            logits = self._run([token])
        ended = output[-1] in self.chat.eos_tokens
        text = self.chat.tokenizer.decode(output[:-1] if ended else output)
        if grammar is not None:
            llama_cpp.llama_sampler_free(grammar)
        finish = time.perf_counter()
        timings = Timings(
            total_ms=(finish - start) * 1e3,
            prefill_ms=(first - start) * 1e3,
            decode_ms=(finish - first) * 1e3,
            prompt_tokens=len(tokens),
            cached_tokens=len(self.prefix),
            output_tokens=len(output) - ended,
            forward_passes=len(output),
        )
        return Generation(text, ended, timings)

    def _run(self, tokens: Sequence[int]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """The logits after the last of these tokens, which come after all that the context holds."""
        given = (llama_cpp.llama_token * len(tokens))(*tokens)
        failed = llama_cpp.llama_decode(self.context, llama_cpp.llama_batch_get_one(given, len(tokens)))
        assert not failed, f"llama_decode returned {failed}"
        return np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(self.context, -1), (self.weights.size,))

    def _allowed(self, grammar: Any, token: int, logits: np.ndarray[Any, np.dtype[np.float32]]) -> int:
        """The token if it fits, else the likeliest that does."""
        one = (llama_cpp.llama_token_data * 1)((token, 1.0, 0.0))
        _apply(grammar, one)
        if one[0].logit != -math.inf:
            return token
        every = (llama_cpp.llama_token_data * len(logits))()
        table = np.ctypeslib.as_array(every)
        table["id"], table["logit"] = np.arange(len(logits)), logits
        _apply(grammar, every)
        return int(table["logit"].argmax())


def _apply(grammar: Any, candidates: Any) -> None:
    """Set the logits of the candidates that the grammar refuses to -inf."""
    given = llama_cpp.llama_token_data_array(candidates, len(candidates), -1, False)
    llama_cpp.llama_sampler_apply(grammar, ctypes.byref(given))
