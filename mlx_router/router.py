"""The router: a request in, one decision out."""

import hashlib
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from .calls import DEFAULT_MAX_TOKENS, NO_TOOL, Decision, Decoder, Failure, Generation, Outcome, ParseFailure, ToolCall
from .catalogue import Catalogue
from .drafts import Drafter
from .grounding import grounded
from .manifest import Manifest, read_manifest
from .parsing import parse
from .prompts import Style, clean_request, conversation, system_message

if TYPE_CHECKING:
    from .data import Example

logger = logging.getLogger("mlx_router")


class Router:
    """Routes requests to the tools of a catalogue.

        router = Router.load("adapters/support")
        decision = router.route("Where's my order ORD-1234?")
        decision.tool, decision.arguments    # "track_order", {"order_id": "ORD-1234"}

    `system` replaces the rendered catalogue where the adapter was trained on a text of its own. `log_requests` lets the
    log of invalid outputs hold their text; without it only hashes are logged.
    """

    def __init__(
        self,
        decoder: Decoder,
        catalogue: Catalogue,
        *,
        style: Style = "signature",
        system: str | None = None,
        max_tokens: int = DEFAULT_MAX_TOKENS,
        manifest: Manifest | None = None,
        log_requests: bool = False,
    ) -> None:
        self.decoder = decoder
        self.catalogue = catalogue
        self.style = style
        self.system = system
        self.max_tokens = max_tokens
        self.manifest = manifest
        self.log_requests = log_requests
        self._trained_on = manifest.catalogue_hash if manifest is not None else catalogue.hash

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        catalogue: Catalogue | None = None,
        base: str | None = None,
        log_requests: bool = False,
    ) -> "Router":
        """A router from an adapter folder or a fused model. Raises `ModelError` where the folder is not whole.

        `catalogue` takes the place of the folder's own: the same tools as Pydantic models declare them, say, whose
        values `Decision.dispatch` then passes on. `base` is where the base lies if it is not found under the name in
        the manifest.
        """
        path = Path(folder).expanduser()
        manifest = read_manifest(path)
        own = manifest.read_catalogue()
        from .decoder import GreedyDecoder
        from .loading import load_routing_model

        return cls(
            GreedyDecoder(load_routing_model(path, manifest, base)),
            own if catalogue is None else catalogue,
            style=manifest.prompt_style,
            system=manifest.system,
            max_tokens=manifest.max_tokens,
            manifest=manifest,
            log_requests=log_requests,
        )

    def route(self, request: str | bytes, *, catalogue: Catalogue | None = None) -> Decision:
        """The decision for one request; greedy, so the same request gives the same decision.

        `catalogue` routes against other tools than the adapter's own. Raises `RequestError` for a request that is
        empty, not UTF-8, or too long for the model; the model's own output never raises.
        """
        text = clean_request(request)
        chosen = self.catalogue if catalogue is None else catalogue
        return self._decide(text, self._system(chosen), chosen)

    def route_example(self, example: "Example") -> Decision:
        """The decision for an example's request, against the example's own catalogue."""
        keep = self.manifest is not None and self.manifest.keep_system
        system = example.system if keep else None
        return self._decide(example.request, system or self._system(example.catalogue), example.catalogue)

    def route_many(
        self, requests: Iterable[str | bytes], *, progress: Callable[[int], None] | None = None
    ) -> list[Decision]:
        """The decisions for several requests, in order; `progress` is called with the number done."""
        decisions = []
        for number, request in enumerate(requests, start=1):
            decisions.append(self.route(request))
            if progress is not None:
                progress(number)
        return decisions

    def _system(self, catalogue: Catalogue) -> str:
        """The text that the adapter was trained on, if it is about this catalogue; else the catalogue rendered."""
        own_text = self.system if catalogue.hash == self._trained_on else None
        return own_text or system_message(catalogue, self.style)

    def _decide(self, request: str, system: str, catalogue: Catalogue) -> Decision:
        draft = Drafter(catalogue, request).continuation
        names = [*(tool.name for tool in catalogue), NO_TOOL]
        messages = conversation(system, request)
        generation = self.decoder.decode(messages, self.max_tokens, draft=draft, names=names)
        outcome = read_outcome(generation, catalogue)
        scores = generation.scores
        if isinstance(outcome, ParseFailure):
            self._log(request, generation.text, outcome)
        return Decision(
            outcome=outcome,
            raw=generation.text,
            catalogue_seen=catalogue.hash == self._trained_on,
            timings=generation.timings,
            confidence=scores.tool if scores else None,
            runner_up=scores.runner_up if scores else None,
            weakest_argument=scores.weakest_argument if scores else None,
            grounded=grounded(outcome, catalogue, request),
            action=_action(outcome),
            typed_arguments=_typed(outcome, catalogue),
        )

    def _log(self, request: str, raw: str, failure: ParseFailure) -> None:
        digest = hashlib.sha256(request.encode()).hexdigest()[:16]
        text = f" request={request!r} output={raw!r} detail={failure.detail!r}" if self.log_requests else ""
        logger.warning("invalid output: request sha256=%s reason=%s%s", digest, failure.reason, text)


def read_outcome(generation: Generation, catalogue: Catalogue) -> Outcome:
    """The outcome of a generation; one that the token limit cut off is never a call."""
    if not generation.finished:
        return ParseFailure(Failure.TRUNCATED, "the answer had not ended at max_tokens")
    return parse(generation.text, catalogue)


def _action(outcome: Outcome) -> str | None:
    if isinstance(outcome, ParseFailure):
        return "rephrase"
    return None if isinstance(outcome, ToolCall) else "answer"


def _typed(outcome: Outcome, catalogue: Catalogue) -> dict[str, object] | None:
    tool = catalogue.get(outcome.tool) if isinstance(outcome, ToolCall) else None
    return tool.typed(outcome.arguments) if tool is not None and isinstance(outcome, ToolCall) else None
