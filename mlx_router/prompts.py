"""The prompt format: messages to tokens, the same for training, evaluation and routing.

Contents are data. They are placed into the rendered template as they are, and a control token's text inside them
("<|im_end|>" typed by a user) is encoded as ordinary characters.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any, Literal, Protocol, TypeAlias

from .calls import NO_TOOL, Message, NoTool, Target, ToolCall
from .catalogue import Catalogue
from .errors import ModelError, RequestError
from .signature import NO_TOOL_ANSWER, TOOLS_FOLLOW, render_reasons, render_signatures

Style: TypeAlias = Literal["signature", "json_schema"]

HOW_TO_CALL = 'Respond with {"tool":"name","arguments":{}}.'
# A template that prints today's date would make today's routing differ from yesterday's training.
A_DAY = "26 Jul 2024"
STOPPED_CLOCK = "{%- macro strftime_now(format) -%}" + A_DAY + "{%- endmacro -%}"
TEMPLATE_OPTIONS = {"enable_thinking": False, "date_string": A_DAY}
SLOT = "mlxrouterslot{}x"
MAX_REQUEST_CHARACTERS = 100_000
# Catalogues whose text and tokens are not made anew for every request.
KEPT_SYSTEMS = 16


@lru_cache(maxsize=KEPT_SYSTEMS)
def system_message(catalogue: Catalogue, style: Style = "signature") -> str:
    """The system message of a catalogue: instructions, tools, and how to answer."""
    head = f"{catalogue.instructions.strip()} {TOOLS_FOLLOW}".strip()
    if style == "signature":
        tools = render_signatures(catalogue)
    else:
        tools = "\n".join(compact_json(tool.to_json()) for tool in catalogue)
    return f"{head}\n{tools}\n{HOW_TO_CALL} {NO_TOOL_ANSWER}{render_reasons(catalogue)}}}."


def assistant_text(target: Target, catalogue: Catalogue | None = None) -> str:
    """The answer as compact JSON; a call's arguments stand in the order of the tool's schema."""
    if isinstance(target, NoTool):
        return compact_json({"tool": NO_TOOL, "reason": target.reason})
    return compact_json({"tool": target.tool, "arguments": ordered_arguments(target, catalogue)})


def ordered_arguments(call: ToolCall, catalogue: Catalogue | None) -> dict[str, Any]:
    """The call's arguments in schema order, then any that the schema does not name."""
    tool = catalogue.get(call.tool) if catalogue is not None else None
    names = [name for name in tool.properties if name in call.arguments] if tool else []
    return {name: call.arguments[name] for name in dict.fromkeys([*names, *call.arguments])}


def compact_json(value: Any) -> str:
    """JSON as the models write it: no spaces, no escapes beyond JSON's own."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def clean_request(text: str | bytes) -> str:
    """The request to route, white space around it taken off.

    Raises `RequestError` where it is empty, not UTF-8, holds lone surrogates, or is absurdly long.
    """
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError as error:
            raise RequestError(f"the request is not UTF-8: {error}") from None
    if not isinstance(text, str):
        raise RequestError(f"the request must be text, not {type(text).__name__}")
    if re.search("[\ud800-\udfff]", text):
        raise RequestError("the request is not UTF-8: it holds a lone surrogate")
    if not text.strip():
        raise RequestError("the request is empty")
    if len(text) > MAX_REQUEST_CHARACTERS:
        raise RequestError(f"the request has {len(text)} characters; the limit is {MAX_REQUEST_CHARACTERS}")
    return text.strip()


def conversation(system: str, request: str) -> tuple[Message, Message]:
    """System and user message."""
    return {"role": "system", "content": system}, {"role": "user", "content": request}


class Tokenizer(Protocol):
    """What is used of a transformers tokenizer (mlx-lm's wrapper forwards to one)."""

    chat_template: Any
    eos_token_id: int

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any: ...
    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...
    def decode(self, tokens: Sequence[int]) -> str: ...
    def get_added_vocab(self) -> dict[str, int]: ...


@dataclass(frozen=True)
class RowTokens:
    """A training row: all its tokens, and the number of them that are prompt. The rest, the answer, is learnt."""

    tokens: list[int]
    prompt_length: int


class ChatFormat:
    """A tokenizer and its chat template, applied so that contents stay data.

    `eos_tokens` are the ids that end an answer.
    """

    def __init__(self, tokenizer: Tokenizer, eos_tokens: Sequence[int] | None = None) -> None:
        self.tokenizer = tokenizer
        self.eos_tokens = frozenset(eos_tokens or (tokenizer.eos_token_id,))
        self._kept_tokens = lru_cache(maxsize=KEPT_SYSTEMS)(self._tokens)
        if not tokenizer.chat_template:
            raise ModelError(
                "this model's tokenizer has no chat template", hint="take an instruct version of the model"
            )

    def prompt_tokens(self, messages: Sequence[Message]) -> list[int]:
        """Tokens of system and user message, up to where the assistant's answer begins."""
        return self._encode(self._prompt_frame, messages)

    def row_tokens(self, messages: Sequence[Message], answer: str) -> RowTokens:
        """Tokens of the prompt, the answer and the token that ends it.

        Raises `ModelError` where the template makes the prompt no prefix of the row: the loss would fall on the wrong
        tokens.
        """
        prompt = self.prompt_tokens(messages)
        row = self._encode(self._row_frame, [*messages, {"role": "assistant", "content": answer}])
        if row[: len(prompt)] != prompt:
            raise ModelError("the prompt's tokens are no prefix of the row's; this chat template can't be trained with")
        end = next((at for at in range(len(prompt), len(row)) if row[at] in self.eos_tokens), None)
        answered = row[: end + 1] if end is not None else [*row, self.tokenizer.eos_token_id]
        return RowTokens(answered, len(prompt))

    def pieces(self, text: str) -> list[str]:
        """A text in the model's tokens, each as text of its own."""
        return [self.tokenizer.decode([token]) for token in self.tokenizer.encode(text, add_special_tokens=False)]

    def shared_prefix(self, system: Message) -> list[int]:
        """The tokens that all prompts with this system message begin with, found by comparing two of them.

        A request may still merge with its last token; whoever uses it compares.
        """
        one, other = (self.prompt_tokens([system, {"role": "user", "content": content}]) for content in "a7")
        size = next((at for at, (left, right) in enumerate(zip(one, other, strict=False)) if left != right), 0)
        return one[:size]

    @cached_property
    def template_hash(self) -> str:
        """SHA-256 (hex) of the chat template."""
        template = self.tokenizer.chat_template
        return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()

    @cached_property
    def _control(self) -> re.Pattern[str] | None:
        """Where a control token's text begins; a look-ahead, since such texts may overlap."""
        texts = [re.escape(text) for text in self.tokenizer.get_added_vocab() if len(text) > 1]
        return re.compile(f"(?={'|'.join(texts)})") if texts else None

    @cached_property
    def _prompt_frame(self) -> list[str]:
        """The row's frame up to the answer, so that what a template puts before it (an empty think block) is prompt.

        Raises `ModelError` where the template's own prompt does not begin the row so.
        """
        generation = self._frame(["system", "user"], add_generation_prompt=True)
        before = self._row_frame[:3]
        if before[:2] != generation[:2] or not before[2].startswith(generation[2]):
            raise ModelError("the chat template's prompt is no prefix of its row; it can't be trained with")
        return before

    @cached_property
    def _row_frame(self) -> list[str]:
        return self._frame(["system", "user", "assistant"], add_generation_prompt=False)

    def _frame(self, roles: list[str], *, add_generation_prompt: bool) -> list[str]:
        """The template's own text around the contents: `len(roles) + 1` pieces."""
        slots = [SLOT.format(number) for number in range(len(roles))]
        messages = [{"role": role, "content": slot} for role, slot in zip(roles, slots, strict=True)]
        try:
            text = self._render(messages, add_generation_prompt)
        except Exception as error:
            # Templates raise jinja2 errors of their own making for a role they do not know; then the catalogue
            # goes to the head of the user's message.
            merged = [{"role": "user", "content": f"{slots[0]}\n\n{slots[1]}"}, *messages[2:]]
            try:
                text = self._render(merged, add_generation_prompt)
            except Exception:
                raise ModelError(f"the model's chat template can't be rendered: {error}") from error
        pieces = re.split("|".join(slots), text)
        if re.findall("|".join(slots), text) != slots:
            raise ModelError("the model's chat template does not show system, user and assistant once, in this order")
        return pieces

    def _render(self, messages: Sequence[Any], add_generation_prompt: bool) -> str:
        template = self.tokenizer.chat_template
        asks_the_clock = isinstance(template, str) and "strftime_now" in template
        options = {"chat_template": STOPPED_CLOCK + template} if asks_the_clock else {}
        text = self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=add_generation_prompt, **TEMPLATE_OPTIONS, **options
        )
        return str(text)

    def _encode(self, frame: list[str], messages: Sequence[Message]) -> list[int]:
        """Tokens of the frame with the contents in it.

        The text is encoded in one go unless a content holds a control token's text; there it is cut after that
        text's first character, so that no piece shows the tokenizer the whole of it. What stands before the request is
        encoded once, where the template allows that.
        """
        text = frame[0]
        cuts, kept = [0], 0
        for message, piece in zip(messages, frame[1:], strict=True):
            if self._control is not None:
                cuts += [len(text) + match.start() + 1 for match in self._control.finditer(message["content"])]
            text += message["content"]
            if self._cut is not None and not kept:
                kept = len(text) + self._cut
                cuts.append(kept)
            text += piece
        cuts.append(len(text))
        found: list[int] = []
        for start, end in pairwise(cuts):
            found += self._kept_tokens(text[start:end]) if end <= kept else self._tokens(text[start:end])
        return found

    def _tokens(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    @cached_property
    def _cut(self) -> int | None:
        """Where the frame's piece before the request can be cut: at a control token, which merges with nothing.

        None where it has none, or where this tokenizer encodes the two parts otherwise than the whole.
        """
        before, between, after = self._row_frame[:3]
        tokens = list(self._control.finditer(between)) if self._control is not None else []
        if not tokens:
            return None
        cut = tokens[-1].start()
        for system in ("A text.", "A text that ends in a space ", "One that ends in a line break\n"):
            head, rest = before + system + between[:cut], between[cut:] + "a request" + after
            if self._tokens(head + rest) != self._tokens(head) + self._tokens(rest):
                return None
        return cut
