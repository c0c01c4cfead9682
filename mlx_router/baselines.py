"""What a router has to beat: three ways to answer without a model, and its own base without training.

found = standings(scored, [always_no_tool(examples), *from_training_rows(examples, rows)])
verdict(found)    # ["The router beats both baselines …"]
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from .bag_of_words import BagOfWords
from .calls import NoTool, Target, ToolCall
from .comparison import Difference, compare
from .data import Example
from .evaluation import NOT_GIVEN, Scored
from .metrics import Metrics, measure
from .pairing import Pair
from .parsing import parse
from .prompts import assistant_text
from .rendering import rate
from .tables import table

NO_TRAINING_ROWS: Final = "there are no training rows at hand (--baseline-train FILE reads them)"
# What a router is held against a baseline by; the first decides whether it beats it.
HELD: Final = ("exact_match", "tool_name_accuracy", "wrong_call_rate")


@dataclass(frozen=True)
class Baseline:
    """Another way to answer the same rows; `scored` is None where it was left out, for the reason in `left_out`."""

    name: str
    about: str
    scored: tuple[Scored, ...] | None = None
    left_out: str | None = None


def always_no_tool(examples: Sequence[Example]) -> Baseline:
    """Never calls a tool: right wherever the gold is `no_tool`, and never a wrong call."""
    return _answered("always no_tool", "never calls a tool", examples, lambda _: NoTool(reason="no_matching_tool"))


def most_frequent_tool(examples: Sequence[Example], training: Sequence[Example] | None) -> Baseline:
    """Always the same call: the tool that rows want most often, with the arguments that it has most often."""
    name = "most frequent tool"
    source, rows = ("training", training) if training else ("test", examples)
    calls = [row.target for row in rows if isinstance(row.target, ToolCall)]
    if not calls:
        return Baseline(name, "always the same call", left_out=f"no row of the {source} rows wants a call")
    tool = Counter(call.tool for call in calls).most_common(1)[0][0]
    texts = Counter(assistant_text(call) for call in calls if call.tool == tool)
    usual = texts.most_common(1)[0][0]
    call = next(call for call in calls if assistant_text(call) == usual)
    return _answered(name, f"always {usual}, the usual call of the {source} rows", examples, lambda _: call)


def bag_of_words(
    examples: Sequence[Example], training: Sequence[Example] | None, why_none: str = NO_TRAINING_ROWS
) -> Baseline:
    """Naive Bayes over words, with arguments copied from the request; left out without training rows or requests."""
    name, about = "bag of words", "naive Bayes over the request's words, arguments copied from it"
    if not training:
        return Baseline(name, about, left_out=why_none)
    if all(example.request == NOT_GIVEN for example in examples):
        return Baseline(name, about, left_out="the rows do not hold their requests")
    classifier = BagOfWords(training)
    about = f"{about}, trained on {len(training)} rows"
    return _answered(name, about, examples, lambda example: classifier.decide(example.request, example.catalogue))


def untrained_base(scored: Sequence[Scored] | None, base: str, left_out: str | None = None) -> Baseline:
    """The base without its adapter, given the same prompt; routed by the caller."""
    about = f"{base} without the adapter, given the same prompt"
    return Baseline("untrained base", about, None if scored is None else tuple(scored), left_out)


def _answered(name: str, about: str, examples: Sequence[Example], decide: Callable[[Example], Target]) -> Baseline:
    return Baseline(name, about, tuple(_scored(example, decide(example)) for example in examples))


def _scored(example: Example, target: Target) -> Scored:
    """A decision as if a model had said it: what does not fit the row's catalogue is a parse failure."""
    text = assistant_text(target, example.catalogue)
    return Scored(example, text, parse(text, example.catalogue))


@dataclass(frozen=True)
class Standing:
    """A router beside a baseline over the same rows; `metrics` is None, and `differences` empty, where it was left out.

    `differences` go from the baseline to the router: "better" says that the router is.
    """

    baseline: Baseline
    metrics: Metrics | None
    differences: dict[str, Difference]

    @property
    def measured(self) -> bool:
        return self.metrics is not None

    @property
    def beaten(self) -> bool:
        """Whether the router gets more whole decisions right, by more than chance."""
        return self.measured and self.differences[HELD[0]].verdict == "better"

    def to_json(self) -> dict[str, Any]:
        """The baseline with its metrics, and the differences."""
        metrics = self.metrics
        return {
            "name": self.baseline.name,
            "about": self.baseline.about,
            "left_out": self.baseline.left_out,
            "beaten": self.beaten if self.measured else None,
            "metrics": None if metrics is None else {name: metric.to_json() for name, metric in metrics.items()},
            "router_minus_baseline": {name: found.to_json() for name, found in self.differences.items()},
        }


def standings(scored: Sequence[Scored], baselines: Sequence[Baseline]) -> list[Standing]:
    """The router's rows held against each baseline's, row by row."""
    return [_standing(scored, baseline) for baseline in baselines]


def _standing(scored: Sequence[Scored], baseline: Baseline) -> Standing:
    if baseline.scored is None:
        return Standing(baseline, None, {})
    pairs = [Pair(theirs, ours) for theirs, ours in zip(baseline.scored, scored, strict=True)]
    found = compare(pairs)
    metrics = measure([one.row for one in baseline.scored])
    return Standing(baseline, metrics, {name: found.metrics[name] for name in HELD})


def verdict(found: Sequence[Standing]) -> list[str]:
    """Whether the router beats its baselines, in words: the first line says it, the others say by what it does not."""
    measured = [standing for standing in found if standing.measured]
    unbeaten = [standing for standing in measured if not standing.beaten]
    if not measured:
        head = "No baseline was measured."
    elif unbeaten:
        names = ", ".join(standing.baseline.name for standing in unbeaten)
        head = f"This router does NOT beat every baseline. Not beaten: {names}."
    else:
        names = ", ".join(standing.baseline.name for standing in measured)
        head = f"The router beats {'the one baseline' if len(measured) == 1 else 'all baselines'} measured: {names}."
    lines = [_unbeaten(standing) for standing in unbeaten]
    lines += [_no_better_tools(standing) for standing in measured if standing.beaten and not _picks_better(standing)]
    lines += [f"{one.baseline.name} was not measured: {one.baseline.left_out}." for one in found if not one.measured]
    return [head, *lines]


def _picks_better(standing: Standing) -> bool:
    return standing.differences["tool_name_accuracy"].verdict == "better"


def _unbeaten(standing: Standing) -> str:
    found = standing.differences["exact_match"]
    said = "the router is worse" if found.verdict == "worse" else "that is no proof that the router is better"
    return (
        f"{standing.baseline.name} is right in {rate(found.a)} of the rows, the router in {rate(found.b)}: {said} "
        "(McNemar's exact test, 5 %)."
    )


def _no_better_tools(standing: Standing) -> str:
    found = standing.differences["tool_name_accuracy"]
    return (
        f"{standing.baseline.name} is beaten by whole decisions, but not in choosing the tool: "
        f"tool_name_accuracy {rate(found.a)}, the router's {rate(found.b)}."
    )


def render_baselines(found: Sequence[Standing]) -> str:
    """The baselines for a terminal: the words first, then the figures."""
    head = ("", *HELD, "the router is")
    ours = [one.differences for one in found if one.measured][:1]
    rows = [
        (one.baseline.name, *(rate(one.metrics[name].value) for name in HELD), one.differences[HELD[0]].verdict)
        for one in found
        if one.metrics is not None
    ]
    rows[:0] = [("the router", *(rate(differences[name].b) for name in HELD), "") for differences in ours]
    first, *others = verdict(found)
    lines = [f"baselines: {first}", *(f"  {line}" for line in others)]
    return "\n".join(lines) + (f"\n\n{table([head, *rows], left=[0, len(HELD) + 1])}" if rows else "")
