"""A catalogue as a grammar over tokens: what may come next in an answer, and how it can still end in time."""

import json
import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from llguidance import LLMatcher, LLTokenizer

from .calls import NO_TOOL
from .catalogue import MORE, Catalogue, Tool
from .errors import CatalogueError, ModelError, RequestError
from .schemas import SUBSCHEMA_LISTS, SUBSCHEMA_MAPS, SUBSCHEMAS, Schema

HEAD = '{"tool":"'
# The answers are compact JSON, so the grammar has no white space.
COMPACT = {"x-guidance": {"whitespace_flexible": False}}
REASON = {"type": "string", "pattern": r"\S", **COMPACT}
# The parser refuses numbers that overflow; the bound also keeps exponents out.
LARGEST = 999_999_999_999_999
# What may bring a value to its end, in the order in which it is tried: inside of a string, what closes it, what formats
# ask for, then anything; outside, what closes objects and arrays, then what values begin with.
INSIDE = ('"}}', '"}', '"]', '"', *"@:Z1023456789Tabcdefghijklmnopqrstuvwxyz-./ABCDEFGHIJKLMNOPQRSUVWXY _+#%&()")
OUTSIDE = ("}}", "}", "]", ",", '"', *"1023456789tfn-.:[{")
SEARCH_STEPS = 600
# Where an answer has no room left at its very beginning, this is it, unless the catalogue lists other reasons.
NOTHING_FITS = f'{{"tool":"{NO_TOOL}","reason":"no_matching_tool"}}'
# A grammar's first line names the answer that takes its place, as a comment.
COMMENT = "// "
SPECIAL = re.compile(r"[\\^$.|?*+(){}\[\]]")
OTHER_TOKENS = 8

# Whether a JSON text stands within a string, and whether right behind a backslash.
Within: TypeAlias = tuple[bool, bool]
Mask: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]


def grammar_text(catalogue: Catalogue) -> str:
    """The answers that fit the catalogue, as a Lark grammar for llguidance.

    Keys stand in the order of the schema. Numbers without bounds of their own are held to fifteen digits.
    """
    calls = [_literal(f'{tool.name}","arguments":') + f" arguments_{n}" for n, tool in enumerate(catalogue)]
    calls.append(_literal(f'{NO_TOOL}","reason":') + " reason")
    schemas = [f"arguments_{n}: %json {json.dumps(_schema(tool))}" for n, tool in enumerate(catalogue)]
    schemas.append(f"reason: %json {json.dumps(_reason_schema(catalogue))}")
    start = f"start: {_literal(HEAD)} ({' | '.join(calls)}) {_literal('}')}"
    return "\n".join([*_shortest(catalogue), start, *schemas])


def _reason_schema(catalogue: Catalogue) -> Schema:
    """Any text, or one of the catalogue's reasons."""
    if not catalogue.reasons:
        return REASON
    begun = [reason.removesuffix(MORE) for reason in catalogue.reasons if reason.endswith(MORE)]
    closed = [reason for reason in catalogue.reasons if not reason.endswith(MORE)]
    options: list[Schema] = [{"enum": closed}] if closed else []
    escaped = (SPECIAL.sub(r"\\\g<0>", text) for text in begun)
    options += [{"type": "string", "pattern": rf"^{text}[\s\S]*\S"} for text in escaped]
    return {"anyOf": options, **COMPACT}


def _shortest(catalogue: Catalogue) -> list[str]:
    """The comment that holds the shortest refusal, where the catalogue lists its reasons."""
    texts = [reason.removesuffix(MORE) + ("-" if reason.endswith(MORE) else "") for reason in catalogue.reasons]
    if not texts:
        return []
    reason = json.dumps(min(texts, key=len), ensure_ascii=False)
    return [f'{COMMENT}{{"tool":"{NO_TOOL}","reason":{reason}}}']


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _schema(tool: Tool) -> Schema:
    return {**_bounded(tool.parameters), **COMPACT}


def _bounded(schema: Any) -> Any:
    """The schema with bounds for the numbers that have none."""
    if not isinstance(schema, dict):
        return schema
    found = dict(schema)
    for key in SUBSCHEMAS:
        if key in found:
            found[key] = _bounded(found[key])
    for key in SUBSCHEMA_LISTS:
        if isinstance(found.get(key), list):
            found[key] = [_bounded(child) for child in found[key]]
    for key in SUBSCHEMA_MAPS:
        if isinstance(found.get(key), dict):
            found[key] = {name: _bounded(child) for name, child in found[key].items()}
    kinds = found.get("type")
    if {"integer", "number"} & set([kinds] if isinstance(kinds, str) else kinds or ()):
        low = max((found[key] for key in ("minimum", "exclusiveMinimum") if key in found), default=None)
        high = min((found[key] for key in ("maximum", "exclusiveMaximum") if key in found), default=None)
        if low is None and (high is None or high > -LARGEST):
            found["minimum"] = -LARGEST
        if high is None and (low is None or low < LARGEST):
            found["maximum"] = LARGEST
    return found


class Vocabulary:
    """A tokenizer as grammars are compiled against; it is made once for a model, which may take a second.

    `size` is the number of the model's logits, which may be larger than that of its tokens. Raises `ModelError` for a
    tokenizer that is not in the form of Hugging Face's `tokenizers`.
    """

    def __init__(self, tokenizer: Any, eos_tokens: Sequence[int], size: int) -> None:
        # Of transformers' fast tokenizer, the one of `tokenizers` within.
        backend = getattr(getattr(tokenizer, "_tokenizer", tokenizer), "backend_tokenizer", None)
        if backend is None:
            raise ModelError(
                "constrained decoding needs a tokenizer in the form of tokenizer.json, and this model has another",
                hint="route in the default mode",
            )
        self.tokens = LLTokenizer(backend.to_str(), n_vocab=size, eos_token=list(eos_tokens))
        self.size = size
        self.end = min(eos_tokens)
        self._encode = partial(tokenizer.encode, add_special_tokens=False)
        self.inside = self._single(tokenizer, INSIDE)
        self.outside = self._single(tokenizer, OUTSIDE)

    def answer(self, text: str) -> list[int]:
        """The tokens of an answer, that of the turn's end included."""
        return [*self._encode(text), self.end]

    def _single(self, tokenizer: Any, texts: Sequence[str]) -> list[int]:
        """Those of the texts that are one token."""
        encoded = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
        return [tokens[0] for tokens in encoded if len(tokens) == 1]

    def within(self, tokens: Sequence[int], before: Within) -> Within:
        """Where a JSON text stands after these tokens."""
        in_string, escaped = before
        for byte in self.tokens.decode_bytes(list(tokens)):
            if escaped:
                escaped = False
            elif byte == ord('"'):
                in_string = not in_string
            else:
                escaped = in_string and byte == ord("\\")
        return in_string, escaped


class Grammar:
    """A catalogue's grammar, compiled for a vocabulary. Raises `CatalogueError` for schemas that it can't express."""

    def __init__(self, text: str, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        failed, messages = LLMatcher.validate_grammar_with_warnings(text, vocabulary.tokens)
        if failed:
            raise _error(text, vocabulary.tokens, messages[0])
        first = text.partition("\n")[0]
        refusal = first.removeprefix(COMMENT) if first.startswith(COMMENT) else NOTHING_FITS
        self.refusal = vocabulary.answer(refusal)
        self._start = LLMatcher(vocabulary.tokens, text, log_level=0)

    def begin(self, max_tokens: int) -> "Path":
        """The way of one answer of at most `max_tokens` tokens, the one that ends the turn included.

        Raises `RequestError` where not even the answer that no tool fits has room.
        """
        if len(self.refusal) > max_tokens:
            raise RequestError(
                f"constrained decoding needs room for {len(self.refusal)} tokens, and the answer may have {max_tokens}",
                hint="raise max_tokens",
            )
        return Path(self._start.deep_copy(), self.vocabulary, max_tokens, self.refusal)


def _error(text: str, tokens: LLTokenizer, message: str) -> CatalogueError:
    """The error, with the tools at fault by number of their rule."""
    problems = []
    head, *rules = [line for line in text.split("\n") if not line.startswith(COMMENT)]
    for rule in rules:
        name, _, schema = rule.partition(": ")
        failed, found = LLMatcher.validate_grammar_with_warnings(f"start: {schema}", tokens)
        if failed:
            literals = head.split(f" {name}", 1)[0].rpartition('"')[0].rpartition(' "')[2]
            tool = literals.partition('\\"')[0]
            problems.append(f"  tool {tool!r}: {_first_line(found[0])}")
    listed = "\n".join(problems) or f"  {_first_line(message)}"
    return CatalogueError(
        f"constrained decoding can't hold answers to this catalogue:\n{listed}",
        hint="take these keywords out of the schema, or route in the default mode, where the parser checks them",
    )


def _first_line(message: str) -> str:
    text = message.split("\n   1 |")[0].removeprefix("at 1(8): ").replace("failed to compile JSON schema: ", "")
    return " ".join(text.split())


class Path:
    """The way of one answer through a grammar, never so far that it could not end within the token limit.

    At every step there is a `plan`, tokens with which the answer would end in time. A token is only taken if a plan is
    found from there on; else the old one is followed.
    """

    def __init__(self, matcher: LLMatcher, vocabulary: Vocabulary, max_tokens: int, plan: list[int]) -> None:
        self.vocabulary = vocabulary
        self.room = max_tokens
        self.plan = plan
        self._matcher = matcher
        self._within: Within = (False, False)

    def allowed(self) -> Mask:
        """Which tokens may come next (V,)."""
        if self._matcher.is_stopped():
            mask = np.zeros(self.vocabulary.size, np.bool_)
            mask[self.vocabulary.end] = True
            return mask
        return _mask(self._matcher)

    def take(self, token: int) -> int:
        """Go on with an allowed token, or, where the answer could not end in time after it, with the planned one."""
        if token in self.vocabulary.tokens.eos_tokens:
            self.plan = []
            return token
        if self.plan[0] != token:
            ahead = self._matcher.deep_copy()
            ahead.consume_token(token)
            within = self.vocabulary.within([token], self._within)
            plan = _search(ahead, within, self.room - 1, self.vocabulary, [SEARCH_STEPS])
            if plan is not None:
                self._matcher, self._within, self.plan, self.room = ahead, within, plan, self.room - 1
                return token
        token, *self.plan = self.plan
        if token not in self.vocabulary.tokens.eos_tokens:
            self._matcher.consume_token(token)
            self._within = self.vocabulary.within([token], self._within)
            self.room -= 1
        return token


def _search(
    matcher: LLMatcher, within: Within, room: int, vocabulary: Vocabulary, steps: list[int]
) -> list[int] | None:
    """Tokens of a short end, that of the turn included; None if none of at most `room` was found.

    Depth first, closing what is open where that is allowed. `steps` holds the number of tokens that may still be tried.
    """
    if room < 1 or matcher.is_error():
        return None
    if matcher.is_accepting():
        return [vocabulary.end]
    forced = matcher.compute_ff_tokens()
    if forced:
        ahead = matcher.deep_copy()
        if len(forced) >= room or ahead.try_consume_tokens(forced) != len(forced):
            return None
        rest = _search(ahead, vocabulary.within(forced, within), room - len(forced), vocabulary, steps)
        return None if rest is None else [*forced, *rest]
    for token in _candidates(matcher, within, vocabulary) if room > 1 else ():
        if steps[0] <= 0:
            return None
        steps[0] -= 1
        ahead = matcher.deep_copy()
        if not ahead.consume_token(token):
            continue
        rest = _search(ahead, vocabulary.within([token], within), room - 1, vocabulary, steps)
        if rest is not None:
            return [token, *rest]
    return None


def _candidates(matcher: LLMatcher, within: Within, vocabulary: Vocabulary) -> Iterator[int]:
    mask = _mask(matcher)
    preferred = [token for token in (vocabulary.inside if within[0] else vocabulary.outside) if mask[token]]
    yield from preferred
    if not preferred:
        yield from (int(token) for token in np.flatnonzero(mask)[:OTHER_TOKENS])


def _mask(matcher: LLMatcher) -> Mask:
    return np.frombuffer(matcher.compute_logit_bias(), np.uint8) > 0
