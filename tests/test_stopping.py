"""Decoding that ends after the tool's name: calls below a threshold are withheld, reasons may be skipped."""

import json
from pathlib import Path

import pytest
from conftest import KNOWN, Run, ScriptedDecoder, known_rows, sure, write_rows

from mlx_router.calls import Abstention, Decision, Failure, NoTool, ParseFailure, ToolCall
from mlx_router.catalogue import Catalogue
from mlx_router.data import read
from mlx_router.decoder import GreedyDecoder
from mlx_router.errors import UsageError
from mlx_router.evaluation import evaluate
from mlx_router.loading import load_routing_model
from mlx_router.manifest import read_manifest
from mlx_router.model import Model
from mlx_router.router import Router
from mlx_router.thresholds import ThresholdReport

REQUEST = "Where's my order ORD-1234?"
CALL = '{"tool":"track_order","arguments":{"order_id":"ORD-1234"}}'
NO_TOOL = '{"tool":"no_tool","reason":"chitchat"}'


def test_a_call_below_the_threshold_is_an_abstention(catalogue: Catalogue) -> None:
    decoder = ScriptedDecoder({REQUEST: sure(CALL, 0.6, "escalate")})
    decision = Router(decoder, catalogue).route(REQUEST, threshold=0.7)

    assert decision.outcome == decision.withheld == Abstention("track_order")
    assert (decision.tool, decision.arguments, decision.reason, decision.failure) == (None, None, None, None)
    assert (decision.valid, decision.action, decision.stopped) == (True, "abstain", "unsure")
    assert (decision.confidence, decision.runner_up) == (0.6, "escalate")
    assert decision.raw == '{"tool":"track_order"'
    found = json.loads(json.dumps(decision.to_json()))
    assert found["withheld"] == {"tool": "track_order", "arguments": None}
    assert (found["tool"], found["arguments"], found["stopped"]) == (None, None, "unsure")
    with pytest.raises(LookupError, match="withheld"):
        decision.dispatch({"track_order": print})


@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.6])
def test_a_call_at_the_threshold_or_above_is_made(threshold: float, catalogue: Catalogue) -> None:
    decoder = ScriptedDecoder({REQUEST: sure(CALL, 0.6)})
    decision = Router(decoder, catalogue).route(REQUEST, threshold=threshold)
    assert (decision.tool, decision.action, decision.withheld, decision.stopped) == ("track_order", None, None, None)


def test_a_call_of_unknown_confidence_is_withheld_too(catalogue: Catalogue) -> None:
    """White space, say: the text is a call, but no names were compared."""
    for answer in (sure(CALL, None), CALL):
        router = Router(ScriptedDecoder({REQUEST: answer}), catalogue)
        decision = router.route(REQUEST, threshold=0.1)
        call = ToolCall(tool="track_order", arguments={"order_id": "ORD-1234"})
        assert (decision.tool, decision.arguments, decision.withheld) == (None, None, call)
        assert (decision.action, decision.stopped) == ("abstain", None)
        assert router.route(REQUEST).tool == "track_order"


def test_an_unsure_no_tool_is_still_no_call(catalogue: Catalogue) -> None:
    decision = Router(ScriptedDecoder({REQUEST: sure(NO_TOOL, 0.3)}), catalogue).route(REQUEST, threshold=0.9)
    assert (decision.outcome, decision.action) == (NoTool(reason="chitchat"), "answer")


def test_a_skipped_reason_is_marked(catalogue: Catalogue) -> None:
    router = Router(ScriptedDecoder({"Hi!": sure(NO_TOOL, 0.9), REQUEST: sure(CALL, 0.9)}), catalogue)
    decision = router.route("Hi!", skip_reason=True)
    assert (decision.tool, decision.reason, decision.stopped) == ("no_tool", "skipped", "no_tool")
    assert (decision.action, decision.withheld, decision.missing) == ("answer", None, ())
    assert router.route("Hi!").reason == "chitchat"
    # A call has no reason to be skipped.
    assert router.route(REQUEST, skip_reason=True).arguments == {"order_id": "ORD-1234"}


def test_invalid_output_stays_invalid(catalogue: Catalogue) -> None:
    router = Router(ScriptedDecoder({REQUEST: '{"tool":"pong","arguments":{}}'}), catalogue)
    found = router.route(REQUEST, threshold=0.9).outcome
    assert isinstance(found, ParseFailure) and found.reason is Failure.UNKNOWN_TOOL


@pytest.mark.parametrize("threshold", [-0.1, 1.5, float("nan")])
def test_a_threshold_is_a_probability(threshold: float, catalogue: Catalogue) -> None:
    decoder = ScriptedDecoder({REQUEST: CALL})
    with pytest.raises(UsageError, match="from 0 to 1"):
        Router(decoder, catalogue).route(REQUEST, threshold=threshold)
    assert decoder.asked == []


# The real decoder


@pytest.fixture(scope="module")
def trained(adapter: Path) -> Model:
    return load_routing_model(adapter, read_manifest(adapter))


def without_times(decision: Decision) -> tuple[object, ...]:
    tokens = decision.timings.output_tokens if decision.timings else None
    return decision.outcome, decision.raw, decision.stopped, decision.action, decision.runner_up, tokens


@pytest.mark.parametrize("mode", ["greedy", "constrained"])
def test_where_an_answer_stops_depends_on_no_guesses_and_no_batch(
    mode: str, trained: Model, catalogue: Catalogue
) -> None:
    options = {"mode": mode, "threshold": 1.0, "skip_reason": True}
    plain, drafting = (
        Router(GreedyDecoder(trained, draft_length=length), catalogue, max_tokens=60) for length in (0, 16)
    )
    wanted = [plain.route(request, **options) for request in KNOWN]  # type: ignore[arg-type]
    whole = [plain.route(request, mode=options["mode"]) for request in KNOWN]  # type: ignore[arg-type]

    for stopped, full, target in zip(wanted, whole, KNOWN.values(), strict=True):
        # No name is said with a probability of exactly one.
        assert stopped.confidence is not None and full.confidence is not None and stopped.confidence < 1
        assert stopped.confidence == pytest.approx(full.confidence, abs=1e-6)
        assert stopped.stopped == ("no_tool" if target["tool"] == "no_tool" else "unsure")
        assert stopped.raw.startswith(f'{{"tool":"{target["tool"]}"') and full.raw.startswith(stopped.raw)
        assert stopped.timings is not None and full.timings is not None
        assert stopped.timings.forward_passes < full.timings.forward_passes
        if mode == "constrained":
            assert stopped.overridden is not None and full.overridden is not None
            assert stopped.overridden <= full.overridden + 1e-6
    alone = [drafting.route(request, **options) for request in KNOWN]  # type: ignore[arg-type]
    together = drafting.route_many(KNOWN, **options)  # type: ignore[arg-type]
    for found in (alone, together):
        assert [without_times(one) for one in found] == [without_times(one) for one in wanted]
        assert [one.confidence for one in found] == pytest.approx([one.confidence for one in wanted], abs=1e-4)
        if mode == "constrained":
            assert [one.overridden for one in found] == pytest.approx([one.overridden for one in wanted], abs=1e-4)


def test_a_row_that_stops_leaves_the_others_of_its_batch_alone(trained: Model, catalogue: Catalogue) -> None:
    router = Router(GreedyDecoder(trained), catalogue, max_tokens=60)
    found = router.route_many(KNOWN, skip_reason=True)
    for decision, target in zip(found, KNOWN.values(), strict=True):
        assert decision.tool == target["tool"]
        assert decision.arguments == target.get("arguments")
        assert (decision.reason == "skipped") == (target["tool"] == "no_tool")


# Evaluation


def test_an_evaluation_says_what_a_threshold_would_withhold(
    trained: Model, catalogue: Catalogue, tmp_path: Path
) -> None:
    """What is worked out from whole answers is what routing with the threshold does."""
    router = Router(GreedyDecoder(trained), catalogue, max_tokens=60)
    more = [{"request": text, "target": {"tool": "no_tool", "reason": "x"}} for text in ("Refund ORD-1?", "Order!")]
    examples = read(write_rows(tmp_path / "rows.jsonl", [*known_rows(), *more]), catalogue)
    scored = evaluate(router, examples)
    confidences = sorted(one.decision.confidence or 0.0 for one in scored if one.decision)
    for threshold in (0.0, (confidences[2] + confidences[3]) / 2, 1.0):
        routed = router.route_many([example.request for example in examples], threshold=threshold)
        made = [decision for decision in routed if decision.arguments is not None]
        withheld = [decision for decision in routed if decision.withheld is not None]
        report = ThresholdReport.of(scored, threshold)
        assert report.found is not None
        assert report.found.actions == {"act": len(made), "confirm": 0, "abstain": len(withheld) - report.unread}


def test_eval_shows_wrong_calls_with_and_without_the_threshold(
    run: Run, scripted: ScriptedDecoder, tmp_path: Path
) -> None:
    scripted.answers = {
        "a": sure(CALL, 0.95),
        "b": sure(CALL.replace("1234", "1"), 0.6),
        "c": sure(CALL, 0.4),
        "d": sure(NO_TOOL, 0.2),
        "e": sure('{"tool":"track_order","arguments":{}}', 0.1),
    }
    target = json.loads(CALL)
    refusal = {"tool": "no_tool", "reason": "x"}
    rows = [{"request": text, "target": target} for text in "ab"]
    rows += [{"request": text, "target": refusal} for text in "cde"]
    data = write_rows(tmp_path / "rows.jsonl", rows)

    plain = run("eval", "adapter", "--data", data, "--json").json
    found = run("eval", "adapter", "--data", data, "--threshold", "0.5", "--json").json
    # The metrics stay those of the whole answers; what the threshold does stands beside them.
    assert found["metrics"] == plain["metrics"] and "threshold" not in plain
    report = found["threshold"]
    assert (report["value"], report["unread_invalid_outputs"]) == (0.5, 1)
    assert (report["before"]["wrong_call_rate"]["value"], report["after"]["wrong_call_rate"]["value"]) == (0.4, 0.2)
    assert report["after"]["false_tool_call_rate"]["value"] == 0.0
    assert report["coverage"]["right_calls_acted_on"]["value"] == 1.0
    assert report["actions"] == {"act": 2, "confirm": 0, "abstain": 1}
    text = run("eval", "adapter", "--data", data, "--threshold", "0.5").out
    assert "with a threshold of 0.5 on confidence:" in text and "withheld: 1 call;" in text
    assert run("eval", "--predictions", data, "--threshold", "0.5").code == 2


def test_route_prints_what_it_withholds_as_such(run: Run, scripted: ScriptedDecoder) -> None:
    scripted.answers = {"Where?": sure(CALL, 0.412), "Hi!": sure(NO_TOOL, 0.9)}
    ran = run("route", "adapter", "Where?", "--threshold", "0.5")
    assert (ran.code, ran.out) == (0, "withheld (confidence 0.41): track_order\n")
    ran = run("route", "adapter", "Where?", "--threshold", "0.5", "--json")
    assert (ran.json["tool"], ran.json["action"], ran.json["stopped"]) == (None, "abstain", "unsure")
    assert run("route", "adapter", "Where?", "--threshold", "0.4").out == CALL + "\n"
    ran = run("route", "adapter", "Hi!", "--skip-reason")
    assert (ran.code, ran.out) == (0, '{"tool":"no_tool","reason":"skipped"}\n')
    assert run("route", "adapter", "Hi!", "--threshold", "2").code == 2
