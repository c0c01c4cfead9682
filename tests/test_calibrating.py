"""A router that is calibrated: by training, by `calibrate`, and what routing and `eval` then do with its calls."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import CATALOGUE, ROOT, Run, ScriptedDecoder, known_rows, write_rows

from mlx_router import calibrating, calibration
from mlx_router.calibrating import calibrate_folder, check_promise, split_validation
from mlx_router.calls import Decision, Generation, Scores, ToolCall
from mlx_router.catalogue import Catalogue
from mlx_router.certainty import WEIGHTS, Calibration, Certainty, Platt
from mlx_router.config import TrainConfig, load_config
from mlx_router.data import Example, read
from mlx_router.errors import ConfigError, DataError, UsageError
from mlx_router.evaluation import evaluate
from mlx_router.interop import load_catalogue
from mlx_router.manifest import Base, Manifest, read_manifest, write_manifest
from mlx_router.policy import Policy
from mlx_router.preparing import prepare_run
from mlx_router.records import data_record, recorded_requests
from mlx_router.router import Router
from mlx_router.training import train

CALL = {"tool": "escalate", "arguments": {"reason": "angry"}}
NO_TOOL = {"tool": "no_tool", "reason": "chitchat"}


def said(target: dict[str, Any], confidence: float | None = None) -> Generation:
    """An answer, and how sure the model was of its tool."""
    return Generation(json.dumps(target), scores=Scores(confidence, "no_tool", 0.99))


def simple(**fields: Any) -> Calibration:
    """P(right) is the odds of the confidence: a half at 0.5; 59 rows, which prove 5 %, one wrong call at 0.8."""
    found = Calibration(
        weights={"confidence": 1.0, "weakest_argument": 0.0, "ungrounded": 0.0, "overridden": 0.0},
        curve=Platt(slope=1.0, intercept=0.0),
        rows=59,
        right=(2.0,),
        wrong=(1.3863,),
        split="by hand",
    )
    return found.model_copy(update=fields)


# Routing under a policy


def router_of(catalogue: Catalogue, policy: Policy | None, **answers: Generation) -> Router:
    return Router(ScriptedDecoder(answers), catalogue, certainty=Certainty(simple(), policy))


@pytest.fixture
def decisions(catalogue: Catalogue) -> dict[str, Decision]:
    """What becomes of calls of falling confidence, a `no_tool` and a failure, under a promise of 5 %."""
    router = router_of(
        catalogue,
        Policy(wrong_call_rate=0.05),
        sure=said(CALL, 0.9),
        likely=said(CALL, 0.7),
        unlikely=said(CALL, 0.4),
        unknown=said(CALL),
        none=said(NO_TOOL, 0.99),
        broken=Generation("Hello!"),
    )
    return {request: router.route(request) for request in router.decoder.answers}  # type: ignore[attr-defined]


def test_the_actions_of_all_outcomes(decisions: dict[str, Decision]) -> None:
    found = {request: decision.action for request, decision in decisions.items()}
    assert found == {
        "sure": "act",
        "likely": "confirm",
        "unlikely": "abstain",
        "unknown": "abstain",
        "none": "answer",
        "broken": "rephrase",
    }
    p_right = {request: decision.p_right for request, decision in decisions.items()}
    assert [p_right[request] for request in ("sure", "likely", "unlikely")] == pytest.approx([0.9, 0.7, 0.4])
    assert [p_right[request] for request in ("unknown", "none", "broken")] == [None] * 3


def test_a_withheld_call_stands_apart_and_calls_nothing(decisions: dict[str, Decision]) -> None:
    called: list[str] = []
    handlers: dict[str, Callable[..., Any]] = {"escalate": called.append}
    withheld = decisions["unlikely"]

    assert (withheld.tool, withheld.arguments, withheld.reason, withheld.valid) == (None, None, None, True)
    assert withheld.withheld == withheld.outcome == ToolCall(tool="escalate", arguments={"reason": "angry"})
    found = json.loads(json.dumps(withheld.to_json()))
    assert (found["tool"], found["arguments"], found["withheld"], found["action"]) == (None, None, CALL, "abstain")
    for confirmed in (False, True):
        with pytest.raises(LookupError, match="withheld"):
            withheld.dispatch(handlers, confirmed=confirmed)
    assert called == []


def test_a_call_to_confirm_is_shown_and_made_once_it_is_confirmed(decisions: dict[str, Decision]) -> None:
    likely = decisions["likely"]
    assert (likely.tool, likely.arguments, likely.withheld) == ("escalate", {"reason": "angry"}, None)
    with pytest.raises(LookupError, match="confirmed=True"):
        likely.dispatch({"escalate": lambda reason: reason})
    assert likely.dispatch({"escalate": lambda reason: reason}, confirmed=True) == "angry"
    assert decisions["sure"].dispatch({"escalate": lambda reason: reason}) == "angry"


def test_without_a_policy_a_call_has_a_probability_and_no_action(catalogue: Catalogue) -> None:
    decision = router_of(catalogue, None, a=said(CALL, 0.4)).route("a")
    assert (decision.p_right, decision.action, decision.tool) == (pytest.approx(0.4), None, "escalate")
    assert decision.dispatch({"escalate": lambda reason: reason}) == "angry"


def test_with_another_catalogue_a_call_is_to_be_confirmed(catalogue: Catalogue) -> None:
    other = Catalogue.from_json({"tools": [*catalogue.to_json()["tools"], {"name": "ping", "description": "ping."}]})
    router = router_of(catalogue, Policy(wrong_call_rate=0.05), a=said(CALL, 0.9))
    assert router.route("a").action == "act"
    assert (router.route("a", catalogue=other).action, router.route("a", catalogue=other).p_right) == ("confirm", None)


def test_what_is_not_acted_on_is_not_printed_as_a_call(
    run: Run, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    router = router_of(
        catalogue, Policy(wrong_call_rate=0.05), a=said(CALL, 0.9), b=said(CALL, 0.7), c=said(CALL, 0.4), d=said(CALL)
    )
    monkeypatch.setattr(Router, "load", lambda *_, **__: router)
    ran = run("route", "adapter", "-", stdin=b"a\nb\nc\nd\n")
    text = '{"tool":"escalate","arguments":{"reason":"angry"}}'
    assert (ran.code, ran.out.splitlines()) == (
        0,
        [
            text,
            f"to be confirmed (right with probability 0.70): {text}",
            f"withheld (right with probability 0.40): {text}",
            f"withheld: {text}",
        ],
    )


# A folder


def folder_of(path: Path, catalogue: Catalogue, **fields: Any) -> Path:
    """An adapter's folder with no weights: its manifest alone."""
    path.mkdir(exist_ok=True)
    base = Base(name="x", model_type="x", tokenizer_hash="x", template_hash="x")
    values: dict[str, Any] = {"max_tokens": 64, "dtype": "x", **fields}
    manifest = Manifest(base=base, catalogue=catalogue.to_json(), catalogue_hash=catalogue.hash, **values)
    write_manifest(path, manifest)
    return path


def rows_of(count: int, first: int = 0) -> list[dict[str, Any]]:
    """Rows of which every fourth wants no tool."""
    return [
        {"request": f"request number {at}", "target": CALL if at % 4 else NO_TOOL} for at in range(first, first + count)
    ]


def answer(request: str) -> Generation:
    """A router's answer: a call that is wrong for every tenth request, of which it is not so sure."""
    at = int(request.rpartition(" ")[2])
    if at % 4 == 0:
        return said(NO_TOOL, 0.99)
    wrong = {"tool": "escalate", "arguments": {"reason": "sad"}}
    return said(wrong, 0.5 + (at % 7) / 20) if at % 10 == 1 else said(CALL, 0.8 + (at % 19) / 100)


class Answering(ScriptedDecoder):
    def decode(self, messages: Sequence[Any], max_tokens: int, **_: Any) -> Generation:
        self.asked.append((tuple(messages), max_tokens))
        return answer(messages[-1]["content"])


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch, catalogue: Catalogue) -> Answering:
    """`Router.load` reads a folder's manifest and calibration, and has this decoder in place of a model."""
    decoder = Answering()

    def load(folder: Path, *, policy: Any = None, calibrated: bool = True, **_: Any) -> Router:
        from mlx_router.manifest import read_certainty

        manifest = read_manifest(Path(folder))
        certainty = read_certainty(manifest, policy, Path(folder)) if calibrated else None
        return Router(decoder, catalogue, manifest=manifest, certainty=certainty)

    monkeypatch.setattr(Router, "load", load)
    return decoder


def test_calibrating_a_folder(run: Run, answering: Answering, tmp_path: Path, catalogue: Catalogue) -> None:
    folder = folder_of(tmp_path / "adapter", catalogue, data={"train": {"requests": {}}}, config={"rank": 4})
    data = write_rows(tmp_path / "more.jsonl", rows_of(160))
    ran = run("calibrate", folder, "--data", data, "--wrong-call-rate", "0.05")

    assert ran.code == 0
    assert "160 rows of their own calibrated): 120 valid calls, 16 wrong" in ran.out
    assert "wrong calls at most 0.05 of all requests, at level 0.95: acts on " in ran.out
    assert "routed 160/160" in ran.err and "router.json" in ran.err
    kept = read_manifest(folder)
    assert kept.config == {"rank": 4}
    assert kept.data["calibration"]["rows"] == 160 and kept.data["calibration"]["source"] == "more.jsonl"
    assert kept.calibration is not None
    assert kept.calibration["policy"] == {"wrong_call_rate": 0.05, "level": 0.95, "confirm": 0.5}
    # The surer calls of this model are the right ones, so a good part of them can be acted on.
    router = Router.load(folder)
    actions = {at: router.route(f"request number {at}").action for at in range(1000, 1400)}
    wrong = [action for at, action in actions.items() if at % 10 == 1]
    assert list(actions.values()).count("act") > 120
    assert len(wrong) == 40 and wrong.count("act") <= 0.05 * 400

    as_json = run("calibrate", folder, "--data", data, "--json")
    # Without a policy of its own the command leaves the folder's in force.
    assert as_json.json["policy"]["wrong_call_rate"] == 0.05
    assert as_json.json["rows"] == 160


def test_rows_that_were_trained_on_are_refused(answering: Answering, tmp_path: Path, catalogue: Catalogue) -> None:
    trained = read(write_rows(tmp_path / "train.jsonl", rows_of(3, first=100)), catalogue)
    folder = folder_of(tmp_path / "adapter", catalogue, data={"train": data_record("train.jsonl", trained)})
    before = (folder / "router.json").read_bytes()
    data = write_rows(tmp_path / "more.jsonl", rows_of(200))

    with pytest.raises(DataError, match="trained on can't calibrate") as caught:
        calibrate_folder(folder, str(data))
    assert "'request number 101' was trained on" in caught.value.message
    assert (answering.asked, (folder / "router.json").read_bytes()) == ([], before)


def test_rows_that_chose_the_checkpoint_weigh_and_do_not_calibrate(
    answering: Answering, tmp_path: Path, catalogue: Catalogue
) -> None:
    chose = read(write_rows(tmp_path / "valid.jsonl", rows_of(60)), catalogue)
    data = {"train": {"requests": {}}, "valid": data_record("valid.jsonl", chose)}
    folder = folder_of(tmp_path / "adapter", catalogue, data=data)
    rows = write_rows(tmp_path / "more.jsonl", rows_of(200))

    found = calibrate_folder(folder, str(rows))
    assert (found.calibration.rows, found.calibration.chose) == (140, 60)
    assert "60 of 200 rows chose the checkpoint" in found.notes[0]
    assert found.calibration.weights["confidence"] != WEIGHTS[0]
    assert read_manifest(folder).data["calibration"]["rows"] == 140
    # Other rows, which choose nothing, find the weights that those gave.
    again = calibrate_folder(folder, str(write_rows(tmp_path / "new.jsonl", rows_of(100, first=500))))
    assert again.calibration.weights == found.calibration.weights
    with pytest.raises(DataError, match="all 60 rows chose the checkpoint"):
        calibrate_folder(folder, str(tmp_path / "valid.jsonl"))


def test_rows_trained_on_with_another_catalogue_are_left_out(
    run: Run, answering: Answering, tmp_path: Path, catalogue: Catalogue
) -> None:
    other = Catalogue.from_json({"tools": catalogue.to_json()["tools"][:2]})
    trained = read(write_rows(tmp_path / "train.jsonl", rows_of(160, first=16)), catalogue)
    record = data_record("train.jsonl", trained)
    record["requests"] = {other.hash[:16]: next(iter(record["requests"].values()))}
    folder = folder_of(tmp_path / "adapter", catalogue, data={"train": record})
    ran = run("calibrate", folder, "--data", write_rows(tmp_path / "more.jsonl", rows_of(260)))
    assert "note: 160 rows were seen in training with another catalogue: left out" in ran.err
    assert "routed 100/100" in ran.err
    assert read_manifest(folder).data["calibration"]["rows"] == 100
    # Rows that calibrated may do so again, with whatever catalogue.
    assert calibrate_folder(folder, str(tmp_path / "more.jsonl")).calibration.rows == 100


def test_unknown_training_rows_are_said_to_be_unknown(
    run: Run, answering: Answering, tmp_path: Path, catalogue: Catalogue
) -> None:
    folder = folder_of(tmp_path / "adapter", catalogue)
    ran = run("calibrate", folder, "--data", write_rows(tmp_path / "more.jsonl", rows_of(100)))
    assert ran.code == 0
    assert "note: nothing says what was trained on" in ran.err
    assert "no policy; 100 rows can promise a wrong_call_rate of 0.0296 or more" in ran.out


def test_a_calibration_that_can_not_be_read_is_replaced(
    answering: Answering, tmp_path: Path, catalogue: Catalogue
) -> None:
    folder = folder_of(tmp_path / "adapter", catalogue, calibration={"older": True})
    calibrate_folder(folder, str(write_rows(tmp_path / "more.jsonl", rows_of(100))))
    assert Router.load(folder).certainty is not None


@pytest.mark.parametrize(
    ("count", "flags", "words"),
    [
        (100, ["--wrong-call-rate", "0.01"], "takes 299 rows that calibrate or more; there are 100"),
        (39, [], "39 rows gave 29 valid calls with known scores; 1 more are missing"),
        (100, ["--level", "0.9"], "give --wrong-call-rate with them"),
        (100, ["--wrong-call-rate", "0.1", "--level", "2"], "level: "),
        (100, ["--wrong-call-rate", "1"], "--wrong-call-rate"),
    ],
)
def test_what_can_not_calibrate_exits_with_2(
    count: int, flags: list[str], words: str, run: Run, answering: Answering, tmp_path: Path, catalogue: Catalogue
) -> None:
    folder = folder_of(tmp_path / "adapter", catalogue, data={"train": {"requests": {}}})
    before = (folder / "router.json").read_bytes()
    ran = run("calibrate", folder, "--data", write_rows(tmp_path / "more.jsonl", rows_of(count)), *flags)
    assert (ran.code, ran.out) == (2, "")
    assert words in ran.err
    assert (folder / "router.json").read_bytes() == before


def test_a_policy_without_a_calibration_is_an_error(adapter: Path, run: Run) -> None:
    with pytest.raises(UsageError, match="has no calibration") as caught:
        Router.load(adapter, policy={"wrong_call_rate": 0.01})
    assert f"mlx-router calibrate {adapter}" in str(caught.value.hint)
    ran = run("route", adapter, "Hi!", "--wrong-call-rate", "0.01")
    assert (ran.code, ran.out) == (2, "")
    assert Router.load(adapter).certainty is None


def test_a_recipes_policy_without_a_calibration_acts_on_nothing(
    answering: Answering, tmp_path: Path, catalogue: Catalogue
) -> None:
    """Where training found too little to calibrate by, the policy that it was given must not be forgotten."""
    folder = folder_of(tmp_path / "adapter", catalogue, config={"policy": {"wrong_call_rate": 0.05}})
    decision = Router.load(folder).route("request number 2")
    assert (decision.tool, decision.action, decision.p_right) == ("escalate", "confirm", None)
    assert Router.load(folder, calibrated=False).route("request number 2").action is None


def test_a_policy_at_loading_takes_the_folders_place(
    answering: Answering, tmp_path: Path, catalogue: Catalogue, run: Run
) -> None:
    folder = folder_of(tmp_path / "adapter", catalogue, data={"train": {"requests": {}}})
    data = write_rows(tmp_path / "more.jsonl", rows_of(160))
    calibrate_folder(folder, str(data), policy={"wrong_call_rate": 0.05})

    def acted(**fields: Any) -> int:
        router = Router.load(folder, **fields)
        return sum(router.route(f"request number {at}").action == "act" for at in range(500, 700))

    assert acted(policy={"wrong_call_rate": 0.02}) < acted() < acted(policy={"wrong_call_rate": 0.3})
    assert acted(calibrated=False) == 0
    with pytest.raises(UsageError, match="takes 299 rows that calibrate or more; there were 160"):
        Router.load(folder, policy={"wrong_call_rate": 0.01})
    ran = run("route", folder, "request number 1", "--wrong-call-rate", "0.01")
    assert (ran.code, ran.out, "0.0186" in ran.err) == (2, "", True)


# eval


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch, catalogue: Catalogue, tmp_path: Path) -> Path:
    """Ten rows; a router of which five calls are acted on, one of them wrongly, two to be confirmed, one withheld."""
    plan = {
        "a": (CALL, said(CALL, 0.95)),
        "b": (CALL, said(CALL, 0.94)),
        "c": (CALL, said(CALL, 0.93)),
        "d": (CALL, said(CALL, 0.92)),
        "e": (NO_TOOL, said(CALL, 0.91)),
        "f": (CALL, said(CALL, 0.7)),
        "g": (NO_TOOL, said(CALL, 0.6)),
        "h": (CALL, said({"tool": "track_order", "arguments": {"order_id": "A-1"}}, 0.3)),
        "i": (NO_TOOL, said(NO_TOOL, 0.99)),
        "j": (CALL, Generation("Hello!")),
    }
    router = router_of(catalogue, Policy(wrong_call_rate=0.05), **{name: said_ for name, (_, said_) in plan.items()})
    monkeypatch.setattr(Router, "load", lambda *_, **__: router)
    rows = [{"request": name, "target": target} for name, (target, _) in plan.items()]
    return write_rows(tmp_path / "test.jsonl", rows)


def test_eval_shows_what_a_policy_saves_and_costs(run: Run, judged: Path) -> None:
    found = run("eval", "adapter", "--data", judged, "--json").json
    policy = found["policy"]

    # The model's own outputs are measured as ever.
    assert found["metrics"]["wrong_call_rate"]["value"] == 0.3
    assert {name: metric["value"] for name, metric in policy["before"].items()} == {
        "wrong_call_rate": 0.3,
        "false_tool_call_rate": 0.2,
        "false_call_rate_on_no_tool": pytest.approx(2 / 3),
    }
    assert {name: (metric["value"], metric["n"]) for name, metric in policy["after"].items()} == {
        "wrong_call_rate": (0.1, 10),
        "false_tool_call_rate": (0.1, 10),
        "false_call_rate_on_no_tool": (pytest.approx(1 / 3), 3),
    }
    assert policy["after"]["wrong_call_rate"]["ci95"] == pytest.approx([0.0179, 0.4042], abs=1e-4)
    assert {name: (metric["value"], metric["n"]) for name, metric in policy["coverage"].items()} == {
        "calls_acted_on": (5 / 8, 8),
        "right_calls_acted_on": (4 / 5, 5),
        "right_when_acted_on": (4 / 5, 5),
    }
    assert policy["actions"] == {"act": 5, "confirm": 2, "abstain": 1}

    figures = found["calibration"]
    p_right = [0.95, 0.94, 0.93, 0.92, 0.91, 0.7, 0.6, 0.3]
    right = [1, 1, 1, 1, 0, 1, 0, 0]
    assert figures["brier"]["value"] == pytest.approx(
        sum((p - y) ** 2 for p, y in zip(p_right, right, strict=True)) / 8
    )
    # Of 15 pairs the call of 0.7 loses to the wrong one of 0.91.
    assert figures["auroc"]["value"] == pytest.approx(14 / 15)
    assert figures["ece"]["value"] == pytest.approx(abs(sum(p_right) - 5) / 8)


def test_the_policys_part_of_the_report(run: Run, judged: Path) -> None:
    out = run("eval", "adapter", "--data", judged).out
    assert re.search(r"^wrong_call_rate +0\.300 +0\.100 +0\.018 … 0\.404 +10$", out, re.MULTILINE)
    assert "acted on: 0.625 of all valid calls, 0.800 of the right ones (act 5, confirm 2, abstain 1)" in out
    assert "P(right) of 8 valid calls: ece 0." in out


def test_predictions_carry_the_policy(run: Run, judged: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    measured = run("eval", "adapter", "--data", judged, "--out", out, "--json").json
    again = run("eval", "--predictions", out, "--json").json
    assert (again["policy"], again["calibration"]) == (measured["policy"], measured["calibration"])
    assert run("eval", "--predictions", out, "--wrong-call-rate", "0.1").code == 2


def test_another_programs_fields_of_these_names_are_left_alone(run: Run, tmp_path: Path) -> None:
    rows = [{"target": CALL, "output": json.dumps(CALL), "action": "call", "p_right": value} for value in ("high", 7.0)]
    found = run("eval", "--predictions", write_rows(tmp_path / "o.jsonl", rows), "--catalogue", CATALOGUE, "--json")
    assert found.code == 0
    assert "policy" not in found.json and "calibration" not in found.json


def test_eval_without_a_calibration_says_nothing_of_it(run: Run, scripted: ScriptedDecoder, tmp_path: Path) -> None:
    scripted.otherwise = json.dumps(CALL)
    data = write_rows(tmp_path / "test.jsonl", [{"request": "a", "target": CALL}])
    assert "policy" not in run("eval", "adapter", "--data", data, "--json").json
    assert "acted on" not in run("eval", "adapter", "--data", data).out


def test_what_a_router_was_sure_of_reaches_the_observations(catalogue: Catalogue, tmp_path: Path) -> None:
    router = Router(ScriptedDecoder({"a": said(CALL, 0.9), "b": said(NO_TOOL, 0.9), "c": Generation("?")}), catalogue)
    rows = write_rows(tmp_path / "r.jsonl", [{"request": request, "target": CALL} for request in "abc"])
    observed = calibration.observe(evaluate(router, read(rows, catalogue)))
    assert [(row.evidence is not None, row.right) for row in observed] == [(True, True), (False, False), (False, False)]
    evidence = observed[0].evidence
    assert evidence is not None
    # "angry" does not stand in the request.
    assert (evidence.confidence, evidence.weakest_argument, evidence.grounded) == (0.9, 0.99, False)


# Training


def split_of(tmp_path: Path, count: int) -> calibrating.Rows:
    rows: list[Example] = read(write_rows(tmp_path / "v.jsonl", rows_of(count)), load_catalogue(CATALOGUE))
    return split_validation(rows)


def test_validation_rows_are_halved_where_both_halves_have_calls_enough(tmp_path: Path) -> None:
    found = split_of(tmp_path, 80)
    assert (found.problem, len(found.choosing), len(found.calibrating)) == (None, 40, 40)
    few = split_of(tmp_path, 79)
    assert (len(few.choosing), len(few.calibrating)) == (79, 0)
    assert few.problem is not None and "79 validation rows have 59 calls; 1 more calls are missing" in few.problem
    assert "60 more calls are missing" in str(split_validation([]).problem)


def test_validation_rows_that_were_trained_on_do_not_calibrate(tmp_path: Path, catalogue: Catalogue) -> None:
    """Training rows stand in validation files by mistake, or with another catalogue; the router knows them by heart."""
    rows = read(write_rows(tmp_path / "v.jsonl", rows_of(160)), catalogue)
    shouted = [{"request": f"Request number {at}!", "target": CALL} for at in range(20)]
    fewer = Catalogue.from_json({"tools": catalogue.to_json()["tools"][1:]})
    training = read(write_rows(tmp_path / "t.jsonl", shouted), fewer)
    found = split_validation(rows, training)
    assert [example.request for example in found.trained_on] == [f"request number {at}" for at in range(20)]
    assert (len(found.choosing), len(found.calibrating)) == (70, 70)
    few = split_validation(rows[:90], training)
    assert (len(few.choosing), len(few.calibrating), len(few.trained_on)) == (70, 0, 20)
    assert "90 validation rows have 52 calls that were not trained on (20 rows were); 8 more" in str(few.problem)
    with pytest.raises(UsageError, match=r"of 160 rows 70 can calibrate, .*, and 20 were trained on"):
        check_promise(Policy(wrong_call_rate=0.01), found)


def test_a_recipe_that_promises_too_much_says_how_many_rows_it_takes(tmp_path: Path) -> None:
    rows = split_of(tmp_path, 120)
    check_promise(Policy(wrong_call_rate=0.05), rows)
    with pytest.raises(UsageError) as caught:
        check_promise(Policy(wrong_call_rate=0.01), rows)
    assert "takes 598 validation rows or more: of 120 rows 60 can calibrate" in caught.value.message
    assert "promise 0.0488" in str(caught.value.hint)
    with pytest.raises(UsageError, match="there are no validation rows"):
        check_promise(Policy(wrong_call_rate=0.5), split_validation([]))


def numbered(numbers: range) -> list[dict[str, Any]]:
    """The rows that a model of kilobytes learns by heart, with numbers behind their requests, to be learnt as noise."""
    return [{**row, "request": f"{row['request']} {number}"} for number in numbers for row in known_rows()]


def recipe(tmp_path: Path, base: Path, valid: list[dict[str, Any]], **fields: Any) -> TrainConfig:
    values: dict[str, Any] = {
        "model": str(base),
        "adapter": str(tmp_path / "adapter"),
        "catalogue": str(CATALOGUE),
        "train": str(write_rows(tmp_path / "train.jsonl", numbered(range(100, 180)))),
        "valid": str(write_rows(tmp_path / "valid.jsonl", valid)),
        "epochs": 1,
        "learning_rate": 1e-2,
        "group_by_length": False,
        "max_tokens": 80,
    }
    return TrainConfig.model_validate(values | fields)


def test_a_promise_is_checked_before_anything_is_loaded(tmp_path: Path) -> None:
    config = recipe(tmp_path, tmp_path / "nowhere", rows_of(120), policy={"wrong_call_rate": 0.001})
    with pytest.raises(UsageError, match="5990 validation rows"):
        prepare_run(config, tmp_path / "adapter", lambda event: None)


def test_training_without_rows_enough_stores_none_and_says_what_is_missing(base: Path, tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    folder = train(recipe(tmp_path, base, known_rows(), max_updates=1, policy=None), events.append)
    manifest = read_manifest(folder)

    assert manifest.calibration is None
    assert (manifest.data["valid"]["rows"], "calibration" in manifest.data) == (5, False)
    notes = [event["message"] for event in events if event["event"] == "note"]
    assert any(note.startswith("not calibrated: 5 validation rows have 3 calls; 57 more") for note in notes)
    assert Router.load(folder).route("Hi!").p_right is None


def test_training_calibrates_by_the_half_that_chose_nothing(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model of kilobytes that knows five requests by heart; the half of a split has fewer calls than 30."""
    monkeypatch.setattr(calibration, "CALLS_NEEDED", 10)
    monkeypatch.setattr(calibrating, "CALLS_NEEDED", 10)
    events: list[dict[str, Any]] = []
    policy = {"wrong_call_rate": 0.2, "confirm": 0.1}
    valid = [*numbered(range(20, 40)), *numbered(range(100, 102))]
    folder = train(recipe(tmp_path, base, valid, policy=policy), events.append)
    manifest = read_manifest(folder)

    chose, calibrated = manifest.data["valid"], manifest.data["calibration"]
    assert chose["rows"] + calibrated["rows"] == 110 and min(chose["rows"] - 10, calibrated["rows"]) >= 40
    keys = [recorded_requests(manifest.data, split) or {} for split in ("valid", "calibration")]
    assert all(keys) and set(*keys[0].values()).isdisjoint(*keys[1].values())
    event = next(event for event in events if event["event"] == "calibration")
    assert (event["rows"], event["chose"]) == (calibrated["rows"], chose["rows"] - 10)
    assert f"{event['chose']} rows chose the checkpoint" in event["message"] and event["split"] in event["message"]
    assert "10 were trained on too and only chose" in event["split"]
    assert manifest.calibration is not None
    assert manifest.calibration["split"] == event["split"]
    assert manifest.config["policy"]["wrong_call_rate"] == 0.2
    assert [event["event"] for event in events][-1] == "done"
    # The weights that were calibrated are those in the folder: another load of them scores the same.
    router = Router.load(folder)
    assert router.certainty is not None and router.certainty.policy == Policy(wrong_call_rate=0.2, confirm=0.1)
    observed = calibration.observe(evaluate(router, read(str(tmp_path / "valid.jsonl"), router.catalogue)))
    found = router.certainty.calibration
    assert found is not None
    scores = [found.score(row.evidence) for row in observed if row.evidence is not None]
    kept = [*found.right, *found.wrong]
    assert all(min(abs(score - other) for other in scores if other is not None) < 1e-3 for score in kept)
    assert {router.route(row["request"]).action for row in numbered(range(40, 44))} >= {"act", "answer"}


def test_a_policy_in_a_recipe_file_and_its_problems_are_named(tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_text("train: rows.jsonl\npolicy: {wrong_call_rate: 1e-2}\n", encoding="utf-8")
    assert load_config(path).policy == Policy(wrong_call_rate=0.01)
    path.write_text("train: rows.jsonl\npolicy: {wrong_call_rate: 2, levle: 0.9}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="2 problem") as caught:
        load_config(path)
    assert "policy.wrong_call_rate: " in caught.value.message and "policy.levle: " in caught.value.message


def test_a_policy_is_a_flag_too(run: Run, tmp_path: Path) -> None:
    ran = run("train", "--train", tmp_path / "rows.jsonl", "--policy", "{wrong_call_rate: 5}")
    assert (ran.code, "policy.wrong_call_rate" in ran.err) == (2, True)


# The document


def test_the_rows_that_a_promise_takes_are_those_in_the_document() -> None:
    text = (ROOT / "docs" / "calibration.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\| (0\.\d+) \| (\d+) \| (\d+), (\d+), (\d+) \| (\d+) \|$", text, re.MULTILINE)
    assert len(lines) == 5
    for rate, *counts, lower in lines:
        for allowed, rows in zip((0, 1, 2, 5), map(int, counts), strict=True):
            policy = Policy(wrong_call_rate=float(rate))
            assert (policy.allowed(rows), policy.allowed(rows - 1)) == (allowed, allowed - 1)
        assert Policy(wrong_call_rate=float(rate), level=0.8).rows_needed == int(lower)
