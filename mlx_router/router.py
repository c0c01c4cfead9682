"""The router: a request in, one decision out."""

import hashlib
import logging
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .asking import Question, Wish
from .calls import (
    DEFAULT_MAX_TOKENS,
    NO_TOOL,
    SKIPPED_REASON,
    Abstention,
    BatchDecoder,
    Decision,
    Decoder,
    Failure,
    Generation,
    Mode,
    NoTool,
    Outcome,
    ParseFailure,
    Prompt,
    Stopped,
    ToolCall,
)
from .capitals import as_written
from .catalogue import Catalogue
from .certainty import Certainty, Verdict, evidence
from .errors import RequestError, UsageError
from .grounding import grounded
from .manifest import Manifest, read_certainty, read_manifest
from .parsing import Change, parse
from .policy import Policy
from .prompts import Style, clean_request, compact_json, conversation, system_message
from .shortlist import Shortlists
from .signature import render_tool

if TYPE_CHECKING:
    from .data import Example
    from .prompts import ChatFormat

logger = logging.getLogger("mlx_router")


class Router:
    """Routes requests to the tools of a catalogue.

        router = Router.load("adapters/support")
        decision = router.route("Where's my order ORD-1234?")
        decision.tool, decision.arguments    # "track_order", {"order_id": "ORD-1234"}

    `system` replaces the rendered catalogue where the adapter was trained on a text of its own. `certainty` tells how
    sure calls are and what to do with them. Invalid outputs are logged, unless `log_failures` is false, by hash alone;
    `log_requests` lets the log hold their text. `mode` "constrained" holds answers to the catalogue's grammar
    (docs/routing.md says what that costs). `shortlist` shows the model that many tools of a larger catalogue, those
    that share most words with the request; by default it is the one that the adapter was trained with, and 0 shows all
    tools. Safe to call from several threads.
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
        certainty: Certainty | None = None,
        log_failures: bool = True,
        log_requests: bool = False,
        mode: Mode = "greedy",
        shortlist: int | None = None,
    ) -> None:
        self.decoder = decoder
        self.catalogue = catalogue
        self.style = style
        self.system = system
        self.max_tokens = max_tokens
        self.manifest = manifest
        self.certainty = certainty
        self.log_failures = log_failures
        self.log_requests = log_requests
        self.mode: Mode = mode
        self._trained_on = manifest.catalogue_hash if manifest is not None else catalogue.hash
        own = manifest.shortlist if manifest is not None else shortlist
        self.shortlist = (own if shortlist is None else shortlist) or None
        self._shortlists = Shortlists(self.shortlist) if self.shortlist is not None else None
        # How sure calls are was learnt with the adapter's own.
        self._own_shortlist = self.shortlist == (own or None)
        if self.shortlist is not None and (system is not None or (manifest is not None and manifest.keep_system)):
            raise UsageError(
                "this adapter was trained on system texts of its own (keep_system), which can't be cut to a shortlist",
                hint="route without a shortlist",
            )

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        catalogue: Catalogue | None = None,
        base: str | None = None,
        policy: Policy | Mapping[str, Any] | None = None,
        calibrated: bool = True,
        log_requests: bool = False,
        mode: Mode = "greedy",
        cache_dir: str | Path | None = None,
        shortlist: int | None = None,
    ) -> "Router":
        """A router from an adapter folder or a fused model. Raises `ModelError` where the folder is not whole.

        `catalogue` takes the place of the folder's own: the same tools as Pydantic models declare them, say, whose
        values `Decision.dispatch` then passes on. `base` is where the base lies if it is not found under the name in
        the manifest. `policy`, `{"wrong_call_rate": 0.01}` say, takes the place of the one in the folder; `UsageError`
        where the folder has no calibration, or one by too few rows for it. Without `calibrated` both are left aside.
        `cache_dir` is a folder in which prefilled catalogues are kept from one process to the next; it does not go
        together with a `shortlist`, which makes other catalogues of every request.
        """
        path = Path(folder).expanduser()
        manifest = read_manifest(path)
        own = manifest.read_catalogue()
        certainty = read_certainty(manifest, policy, path) if calibrated else None
        if cache_dir is not None and (manifest.shortlist if shortlist is None else shortlist):
            raise UsageError(
                "a shortlist makes a catalogue of its own for a request, so that keeping them on disk gains nothing",
                hint="give either a cache or a shortlist; a shortlist of 0 shows all tools",
            )
        from .decoder import GreedyDecoder
        from .draft_lengths import remembered
        from .loading import load_routing_model
        from .prefixes import PrefixFiles
        from .worker import compute

        files = PrefixFiles(Path(cache_dir).expanduser()) if cache_dir is not None else None
        model = compute(lambda: load_routing_model(path, manifest, base, merge=True))
        router = cls(
            GreedyDecoder(model, draft_length=remembered(model), files=files),
            own if catalogue is None else catalogue,
            style=manifest.prompt_style,
            system=manifest.system,
            max_tokens=manifest.max_tokens,
            manifest=manifest,
            certainty=certainty,
            log_requests=log_requests,
            mode=mode,
            shortlist=shortlist,
        )
        longest = router.catalogue
        if router.shortlist is not None:
            by_length = sorted(longest, key=lambda tool: -len(render_tool(tool)))
            longest = longest.only({tool.name for tool in by_length[: router.shortlist]})
        _warn_of_length(model.chat, model.config.get("trained_tokens"), router._system(longest))
        return router

    def route(
        self,
        request: str | bytes,
        *,
        catalogue: Catalogue | None = None,
        mode: Mode | None = None,
        threshold: float = 0.0,
        skip_reason: bool = False,
    ) -> Decision:
        """The decision for one request; greedy, so the same request gives the same decision.

        `catalogue` routes against other tools than the adapter's own, `mode` in another mode than the router's. A call
        whose `confidence` is below the `threshold` is withheld, and decoding stops after its tool's name. With
        `skip_reason` it stops after the name `no_tool`, whose reason is then "skipped".
        Raises `RequestError` for a request that is empty, not UTF-8, or too long for the model; the model's own output
        never raises.
        """
        return self._decide(self._question(request, catalogue), self._wish(mode, threshold, skip_reason))

    def route_example(self, example: "Example", *, mode: Mode | None = None) -> Decision:
        """The decision for an example's request, against the example's own catalogue."""
        return self._decide(self._example(example), self._wish(mode))

    def route_many(
        self,
        requests: Iterable[str | bytes],
        *,
        catalogue: Catalogue | None = None,
        mode: Mode | None = None,
        threshold: float = 0.0,
        skip_reason: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> list[Decision]:
        """The decisions for several requests, in order; `progress` is called with the number done.

        They are those that `route` gives, up to ties in floating point. The requests are decoded in batches that share
        the catalogue, which takes less time where the model waits for memory. Raises `RequestError` as `route` does,
        one too long after all others.
        """
        wish = self._wish(mode, threshold, skip_reason)
        found = self._decide_many([self._question(request, catalogue) for request in requests], wish, progress)
        decisions = []
        for number, decision in enumerate(found, start=1):
            if isinstance(decision, RequestError):
                raise RequestError(f"request {number}: {decision.message}", hint=decision.hint)
            decisions.append(decision)
        return decisions

    def route_examples(
        self,
        examples: "Sequence[Example]",
        *,
        mode: Mode | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> list[Decision | RequestError]:
        """The decisions for several examples, in batches; or what `route_example` raises, in its place."""
        return self._decide_many([self._example(example) for example in examples], self._wish(mode), progress)

    def _wish(self, mode: Mode | None, threshold: float = 0.0, skip_reason: bool = False) -> Wish:
        if not 0 <= threshold <= 1:
            raise UsageError(f"the threshold is {threshold!r}; confidence is a probability, from 0 to 1")
        return Wish(self.mode if mode is None else mode, threshold, skip_reason)

    def prompt(self, request: str | bytes, *, catalogue: Catalogue | None = None, mode: Mode | None = None) -> Prompt:
        """What the decoder is asked for a request."""
        return self._question(request, catalogue).prompt(self._wish(mode))

    def _question(self, request: str | bytes, catalogue: Catalogue | None) -> Question:
        return self._ask(clean_request(request), self.catalogue if catalogue is None else catalogue)

    def _example(self, example: "Example") -> Question:
        keep = self.manifest is not None and self.manifest.keep_system
        system = example.system if keep else None
        return self._ask(example.request, example.catalogue, system)

    def _ask(self, request: str, catalogue: Catalogue, system: str | None = None) -> Question:
        shown = catalogue if self._shortlists is None else self._shortlists.of(catalogue)(request)
        seen = catalogue.hash == self._trained_on
        return Question(request, system or self._system(shown), shown, seen, shortened=shown is not catalogue)

    def _system(self, catalogue: Catalogue) -> str:
        """The text that the adapter was trained on, if it is about this catalogue; else the catalogue rendered."""
        own_text = self.system if catalogue.hash == self._trained_on else None
        return own_text or system_message(catalogue, self.style)

    def _decide(self, question: Question, wish: Wish) -> Decision:
        prompt = question.prompt(wish)
        # Only a decoder that is asked for them has to know of grammars and stops.
        options: dict[str, Any] = {"grammar": prompt.grammar} if prompt.grammar else {}
        options |= {"stop": prompt.stop} if prompt.stop is not None else {}
        generation = self.decoder.decode(
            prompt.messages, self.max_tokens, draft=prompt.draft, names=prompt.names, **options
        )
        return self._decision(question, wish, generation)

    def _decide_many(
        self, questions: Sequence[Question], wish: Wish, progress: Callable[[int], None] | None
    ) -> list[Decision | RequestError]:
        if isinstance(self.decoder, BatchDecoder) and len(questions) > 1:
            prompts = [question.prompt(wish) for question in questions]
            found = self.decoder.decode_many(prompts, self.max_tokens, progress)
            return [
                one if isinstance(one, RequestError) else self._decision(question, wish, one)
                for question, one in zip(questions, found, strict=True)
            ]
        decisions: list[Decision | RequestError] = []
        for number, question in enumerate(questions, start=1):
            try:
                decisions.append(self._decide(question, wish))
            except RequestError as error:
                decisions.append(error)
            if progress is not None:
                progress(number)
        return decisions

    def _decision(self, question: Question, wish: Wish, generation: Generation) -> Decision:
        scores = generation.scores
        if generation.stopped is not None:
            return self._stopped(question, generation, generation.stopped)
        catalogue = question.catalogue
        spelled = partial(as_written, request=question.request, shown=question.shown)
        in_capitals = question.shown != question.request
        outcome = read_outcome(generation, catalogue, spelled if in_capitals else None)
        said = grounded(outcome, catalogue, question.request)
        verdict = Verdict()
        if isinstance(outcome, ParseFailure):
            self._log(question.request, generation.text, outcome)
        elif isinstance(outcome, ToolCall) and self.certainty is not None:
            verdict = self.certainty.verdict(
                evidence(scores, said), catalogue_seen=question.catalogue_seen, own_shortlist=self._own_shortlist
            )
        abstains = isinstance(outcome, ToolCall) and (verdict.action == "abstain" or wish.withholds(generation))
        return Decision(
            outcome=outcome,
            raw=_raw(outcome) if in_capitals and isinstance(outcome, ToolCall) else generation.text,
            catalogue_seen=question.catalogue_seen,
            timings=generation.timings,
            confidence=scores.tool if scores else None,
            runner_up=scores.runner_up if scores else None,
            weakest_argument=scores.weakest_argument if scores else None,
            grounded=said,
            p_right=verdict.p_right,
            withheld=outcome if isinstance(outcome, ToolCall) and abstains else None,
            action="abstain" if abstains else verdict.action or _action(outcome),
            shortlist=question.shortlist,
            overridden=scores.overridden if scores else None,
            overridden_tokens=scores.overridden_tokens if scores else None,
            typed_arguments=_typed(outcome, catalogue),
        )

    def _stopped(self, question: Question, generation: Generation, name: str) -> Decision:
        """The decision of an answer that was left after the tool's name."""
        scores = generation.scores
        unsure = None if name == NO_TOOL else Abstention(name)
        why: Stopped = "no_tool" if unsure is None else "unsure"
        return Decision(
            outcome=unsure or NoTool(reason=SKIPPED_REASON),
            raw=generation.text,
            catalogue_seen=question.catalogue_seen,
            timings=generation.timings,
            confidence=scores.tool if scores else None,
            runner_up=scores.runner_up if scores else None,
            withheld=unsure,
            action="answer" if unsure is None else "abstain",
            stopped=why,
            shortlist=question.shortlist,
            overridden=scores.overridden if scores else None,
            overridden_tokens=scores.overridden_tokens if scores else None,
        )

    def _log(self, request: str, raw: str, failure: ParseFailure) -> None:
        if not self.log_failures:
            return
        digest = hashlib.sha256(request.encode()).hexdigest()[:16]
        text = f" request={request!r} output={raw!r} detail={failure.detail!r}" if self.log_requests else ""
        logger.warning("invalid output: request sha256=%s reason=%s%s", digest, failure.reason, text)


def _warn_of_length(chat: "ChatFormat", trained: int | None, system: str) -> None:
    """Warn where a catalogue is longer than any that the base was trained with, if the base says so."""
    size = len(chat.shared_prefix(conversation(system, "?")[0])) if trained else 0
    if trained and size > trained:
        warnings.warn(
            f"this catalogue has {size} tokens; the base was trained with up to {trained}, and gets worse beyond: "
            "take fewer tools, a shortlist, shorter descriptions or a larger base",
            stacklevel=3,
        )


def read_outcome(generation: Generation, catalogue: Catalogue, change: Change | None = None) -> Outcome:
    """The outcome of a generation, `change` as in `parse`; one that the token limit cut off is never a call."""
    if not generation.finished:
        return ParseFailure(Failure.TRUNCATED, "the answer had not ended at max_tokens")
    return parse(generation.text, catalogue, change)


def _raw(call: ToolCall) -> str:
    """A call as the model would have written it, had it read the request as it was written."""
    return compact_json({"tool": call.tool, "arguments": call.arguments})


def _action(outcome: Outcome) -> str | None:
    if isinstance(outcome, ParseFailure):
        return "rephrase"
    return None if isinstance(outcome, ToolCall) else "answer"


def _typed(outcome: Outcome, catalogue: Catalogue) -> dict[str, object] | None:
    tool = catalogue.get(outcome.tool) if isinstance(outcome, ToolCall) else None
    return tool.typed(outcome.arguments) if tool is not None and isinstance(outcome, ToolCall) else None
