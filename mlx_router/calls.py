"""What a router says (a call, an explicit `no_tool`, or unusable output), and the seam that it is decoded through."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Literal, Protocol, TypeAlias, TypedDict, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field

from .errors import RequestError

NO_TOOL: Final = "no_tool"
DEFAULT_MAX_TOKENS = 128
# The reason of a `no_tool` whose own reason the caller did not want to wait for.
SKIPPED_REASON = "skipped"
# Codes of the reasons that our data give; any other reason is as valid.
REASON_CODES = (
    *("out_of_scope", "no_matching_tool", "chitchat"),
    *("no_action_requested", "missing_information", "invalid_parameter"),
)


class ToolCall(BaseModel):
    """A call of one tool of the catalogue, `{"tool": …, "arguments": {…}}`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    tool: str
    arguments: dict[str, Any]


class NoTool(BaseModel):
    """The explicit decision that no tool is to be called, `{"tool": "no_tool", "reason": …}`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    tool: Literal["no_tool"] = NO_TOOL
    reason: str = Field(min_length=1, pattern=r"\S")

    @property
    def code(self) -> str:
        """The reason's code: what stands before the first colon."""
        return self.reason.partition(":")[0].strip()

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the parameters that the request leaves open, `missing_information: a, b` -> `("a", "b")`."""
        code, _, words = self.reason.partition(":")
        if code.strip() != "missing_information":
            return ()
        return tuple(name.strip() for name in words.split(",") if name.strip())


class Failure(StrEnum):
    """Why an output is not a decision. Each trap of the parser has a reason of its own."""

    EMPTY = "empty"
    TOO_LONG = "too_long"
    NOT_JSON = "not_json"
    TRAILING_TEXT = "trailing_text"
    DUPLICATE_KEY = "duplicate_key"
    BAD_NUMBER = "bad_number"
    TOO_DEEP = "too_deep"
    LONE_SURROGATE = "lone_surrogate"
    NOT_AN_OBJECT = "not_an_object"
    BAD_ENVELOPE = "bad_envelope"
    UNKNOWN_TOOL = "unknown_tool"
    ARGUMENTS_NOT_AN_OBJECT = "arguments_not_an_object"
    MISSING_ARGUMENT = "missing_argument"
    EXTRA_ARGUMENT = "extra_argument"
    BAD_ARGUMENT = "bad_argument"
    NO_REASON = "no_reason"
    TRUNCATED = "truncated"
    REFUSED = "request_refused"


@dataclass(frozen=True, slots=True)
class ParseFailure:
    """Output that is no valid decision: a value, never an exception."""

    reason: Failure
    detail: str


@dataclass(frozen=True, slots=True)
class Abstention:
    """A call of this tool that was not decoded: its name was less probable than the caller's threshold."""

    tool: str


Target: TypeAlias = ToolCall | NoTool
Outcome: TypeAlias = ToolCall | NoTool | ParseFailure


class Message(TypedDict):
    """One chat message."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Timings:
    """Where one decision's time went: milliseconds, tokens and forward passes. Waiting for other threads counts.

    In a batch (`batch_size` requests decoded together) the times run from the batch's start, and its passes are shared.
    """

    total_ms: float
    prefill_ms: float
    decode_ms: float
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    forward_passes: int
    batch_size: int = 1


@dataclass(frozen=True, slots=True)
class Scores:
    """How sure the model was, from the logits that decoding computes anyway.

    `tool` is the probability of the chosen name among all names, `runner_up` the most likely other one,
    `weakest_argument` the lowest probability of a token of the arguments. None where the answer has no such part.
    `overridden`, under a grammar, is the probability that the model alone would have left it somewhere along this
    answer, and `overridden_tokens` the number of tokens that are not the model's own first choice.
    """

    tool: float | None
    runner_up: str | None
    weakest_argument: float | None
    overridden: float | None = None
    overridden_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Generation:
    """What a decoder made of one prompt. `finished` is false where the token limit cut it off.

    `stopped` is the name after which it stopped because the caller wanted no more; the text ends there.
    """

    text: str
    finished: bool = True
    timings: Timings | None = None
    scores: Scores | None = None
    stopped: str | None = None


# Text that the answer may go on with, given the answer so far; "" for no guess.
Draft: TypeAlias = Callable[[str], str]
# Whether to stop after the tool's name, given the name and its probability among all names.
Stop: TypeAlias = Callable[[str, float], bool]
# Why decoding ended after the tool's name: the call was too unsure, or nobody wanted the reason of a `no_tool`.
Stopped: TypeAlias = Literal["unsure", "no_tool"]


# How answers are chosen: as the model would say them, or held to the catalogue's grammar.
Mode: TypeAlias = Literal["greedy", "constrained"]


class Decoder(Protocol):
    """Turns messages into the model's greedy answer.

    `messages` are system and user, in this order; the answer ends before the end-of-turn token. `draft` guesses how
    an answer goes on: it may make decoding faster, and must not change the answer. `names` are those that a tool may
    have, for the scores. With a `grammar` (see the module of that name) each token is the likeliest of those that the
    grammar allows; a router passes it in mode "constrained" only. `stop` is asked once, when the whole name stands in
    the answer and its probability is known; a router passes it only where it may say yes. Raises `RequestError` for a
    prompt longer than the model's context.
    """

    def decode(
        self,
        messages: Sequence[Message],
        max_tokens: int,
        *,
        draft: Draft | None = None,
        names: Sequence[str] = (),
        grammar: str = "",
        stop: Stop | None = None,
    ) -> Generation: ...


@dataclass(frozen=True, slots=True)
class Prompt:
    """One of several requests to decode, with what `Decoder.decode` takes for it."""

    messages: tuple[Message, ...]
    draft: Draft | None = None
    names: tuple[str, ...] = ()
    grammar: str = ""
    stop: Stop | None = None


@runtime_checkable
class BatchDecoder(Decoder, Protocol):
    """A decoder that takes several prompts at once. Each answer is the one that `decode` gives, or its error."""

    def decode_many(
        self, prompts: Sequence[Prompt], max_tokens: int, progress: Callable[[int], None] | None = None
    ) -> list[Generation | RequestError]: ...


@dataclass(frozen=True, slots=True)
class Decision:
    """One routed request: the outcome, the raw text it was read from, and what is known about it.

    Fields that were not measured are None. `action` is what the caller should do: "answer" for `no_tool`, "rephrase"
    for output that is not valid; for a valid call "act", "confirm" or "abstain" under a policy, and None without one.
    A call to abstain from is `withheld`: `tool` and `arguments` are None then, and only `outcome` still holds it. Below
    the caller's threshold it is an `Abstention`, a tool without arguments. `stopped` says why decoding ended after the
    tool's name, None where it did not; a `no_tool` that was "stopped" has the reason "skipped". `shortlist` names the
    tools that the model was shown, None where these were all.
    `p_right` is the calibrated probability that a valid call is right. `overridden` is the probability that the grammar
    of mode "constrained" took from the model (see `Scores`), None in the default mode.
    """

    outcome: Outcome | Abstention
    raw: str
    catalogue_seen: bool | None = None
    timings: Timings | None = None
    confidence: float | None = None
    runner_up: str | None = None
    weakest_argument: float | None = None
    grounded: bool | None = None
    p_right: float | None = None
    withheld: ToolCall | Abstention | None = None
    action: str | None = None
    stopped: Stopped | None = None
    shortlist: tuple[str, ...] | None = None
    overridden: float | None = None
    overridden_tokens: int | None = None
    typed_arguments: Mapping[str, Any] | None = field(default=None, compare=False)

    @property
    def valid(self) -> bool:
        """Whether the output is a call, withheld or not, or a `no_tool`."""
        return not isinstance(self.outcome, ParseFailure)

    @property
    def tool(self) -> str | None:
        """The chosen tool, "no_tool", or None for invalid output and for a call that is withheld."""
        return None if isinstance(self.outcome, ParseFailure) or self.withheld is not None else self.outcome.tool

    @property
    def arguments(self) -> dict[str, Any] | None:
        """The call's arguments as JSON values; None unless a tool is called."""
        return self.outcome.arguments if isinstance(self.outcome, ToolCall) and self.withheld is None else None

    @property
    def reason(self) -> str | None:
        """Why no tool is called; None unless the outcome is `no_tool`."""
        return self.outcome.reason if isinstance(self.outcome, NoTool) else None

    @property
    def missing(self) -> tuple[str, ...]:
        """Parameters that the request leaves open, where `no_tool` was said for want of them."""
        return self.outcome.missing if isinstance(self.outcome, NoTool) else ()

    @property
    def failure(self) -> ParseFailure | None:
        """What is wrong with the output; None for a valid one."""
        return self.outcome if isinstance(self.outcome, ParseFailure) else None

    def dispatch(self, handlers: Mapping[str, Callable[..., Any]], *, confirmed: bool = False) -> Any:
        """Call the handler of the chosen tool with its arguments as keywords and return what it returns.

        A tool that was declared by a Pydantic model gets that model's values (a `date`, say), any other the JSON
        values. `confirmed` says that the user wants a call whose action is "confirm". Raises `LookupError`, and calls
        nothing, if the outcome is no call, is withheld, is not confirmed, or has no handler.
        """
        if self.withheld is not None or self.action == "abstain":
            raise LookupError("nothing to dispatch: the call is withheld, it is too likely to be wrong")
        if not isinstance(self.outcome, ToolCall):
            raise LookupError(f"nothing to dispatch: the outcome is {self.outcome!r}")
        if self.action == "confirm" and not confirmed:
            raise LookupError("the call is to be confirmed first; then: dispatch(handlers, confirmed=True)")
        if self.outcome.tool not in handlers:
            raise LookupError(f"no handler for tool {self.outcome.tool!r}")
        arguments = self.typed_arguments if self.typed_arguments is not None else self.outcome.arguments
        return handlers[self.outcome.tool](**arguments)

    def to_json(self) -> dict[str, Any]:
        """The decision as one JSON object; what was not measured is null."""
        failure = self.failure
        return {
            "tool": self.tool,
            "arguments": self.arguments,
            "reason": self.reason,
            "valid": self.valid,
            "failure": None if failure is None else {"reason": str(failure.reason), "detail": failure.detail},
            "confidence": self.confidence,
            "runner_up": self.runner_up,
            "weakest_argument": self.weakest_argument,
            "grounded": self.grounded,
            "p_right": self.p_right,
            "catalogue_seen": self.catalogue_seen,
            "action": self.action,
            "withheld": _withheld_json(self.withheld),
            "stopped": self.stopped,
            "shortlist": None if self.shortlist is None else list(self.shortlist),
            "overridden": self.overridden,
            "overridden_tokens": self.overridden_tokens,
            "raw": self.raw,
            "timings": None if self.timings is None else {k: getattr(self.timings, k) for k in Timings.__slots__},
        }


def _withheld_json(withheld: ToolCall | Abstention | None) -> dict[str, Any] | None:
    if isinstance(withheld, Abstention):
        return {"tool": withheld.tool, "arguments": None}
    return None if withheld is None else withheld.model_dump()
