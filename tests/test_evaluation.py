"""Evaluation from rows to numbers: by hand, through a router, through predictions, and against gates."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import CATALOGUE, Ran, Run, ScriptedDecoder, write_rows

from mlx_router.calls import Generation, Scores, Timings
from mlx_router.catalogue import Catalogue
from mlx_router.data import read
from mlx_router.errors import DataError, RequestError
from mlx_router.evaluation import Evaluation, evaluate, read_predictions, write_predictions
from mlx_router.interop import catalogue_from_json
from mlx_router.prompts import system_message
from mlx_router.router import Router


def track(order_id: str) -> dict[str, Any]:
    return {"tool": "track_order", "arguments": {"order_id": order_id}}


def escalate(reason: str) -> dict[str, Any]:
    return {"tool": "escalate", "arguments": {"reason": reason}}


def refund(order_id: str, reason: str) -> dict[str, Any]:
    return {"tool": "request_refund", "arguments": {"order_id": order_id, "reason": reason}}


def no_tool(reason: str) -> dict[str, Any]:
    return {"tool": "no_tool", "reason": reason}


# Every kind of outcome: request, gold, output. What follows from them by hand stands in `BY_HAND`.
ROWS: list[tuple[str, dict[str, Any], dict[str, Any] | str | Generation]] = [
    ("right call", track("A-1"), track("A-1")),
    ("wrong arguments", refund("A-2", "it broke"), refund("A-2", "broke")),
    ("wrong tool", track("A-3"), escalate("late")),
    ("missed call", track("A-4"), no_tool("chitchat")),
    ("no JSON", track("A-5"), "I would track A-5."),
    ("right no_tool", no_tool("chitchat"), no_tool("chitchat: a greeting")),
    ("other words", no_tool("missing_information: order_id, reason"), no_tool("missing_information: reason")),
    ("false call", no_tool("out_of_scope"), track("A-8")),
    ("cut off", no_tool("out_of_scope"), Generation('{"tool":"no_tool","reason":"out_of_scope"}', finished=False)),
    ("another right call", escalate("angry"), escalate("angry")),
]
KINDS = {"right call": "plain", "wrong tool": "plain", "false call": "trap"}
ALTERNATIVES = {"wrong tool": [escalate("late"), track("A-33")]}
# Name: value, n, highest attainable.
BY_HAND: dict[str, tuple[float | None, int, float | None]] = {
    "valid_tool_call_rate": (8 / 10, 10, None),
    "tool_name_accuracy": (5 / 10, 10, None),
    "argument_match_accuracy": (2 / 8, 8, 6 / 10),
    "false_tool_call_rate": (1 / 10, 10, None),
    "exact_match": (4 / 10, 10, None),
    "exact_match_with_alternatives": (5 / 10, 10, None),
    "argument_match_on_calls": (2 / 3, 3, None),
    "false_call_rate_on_no_tool": (1 / 4, 4, None),
    "missed_call_rate": (1 / 6, 6, None),
    "wrong_call_rate": (3 / 10, 10, None),
    "parse_failure_rate": (2 / 10, 10, None),
}


def said(answer: dict[str, Any] | str | Generation) -> str | Generation:
    return json.dumps(answer) if isinstance(answer, dict) else answer


def script(decoder: ScriptedDecoder) -> None:
    decoder.answers.update({request: said(answer) for request, _, answer in ROWS})


def rows() -> list[dict[str, Any]]:
    found = []
    for number, (request, target, _) in enumerate(ROWS):
        row: dict[str, Any] = {"request": request, "target": target, "id": f"r{number}"}
        row |= {"kind": KINDS[request]} if request in KINDS else {}
        found.append(row | ({"alternatives": ALTERNATIVES[request]} if request in ALTERNATIVES else {}))
    return found


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "test.jsonl", rows())


@pytest.fixture
def measured(run: Run, scripted: ScriptedDecoder, data: Path) -> Ran:
    """`eval --json` over the rows above."""
    script(scripted)
    return run("eval", "some/adapter", "--data", data, "--json")


def test_the_numbers_are_those_by_hand(measured: Ran) -> None:
    found = measured.json

    assert (measured.code, found["n"]) == (0, 10)
    assert list(found["metrics"]) == list(BY_HAND)
    for name, (value, n, highest) in BY_HAND.items():
        metric = found["metrics"][name]
        assert metric["value"] == pytest.approx(value), name
        assert (metric["n"], metric.get("max")) == (n, highest), name
    # Wilson's intervals of 8/10 and 5/10, as tables have them.
    assert found["metrics"]["valid_tool_call_rate"]["ci95"] == pytest.approx([0.4902, 0.9433], abs=1e-4)
    assert found["metrics"]["tool_name_accuracy"]["ci95"] == pytest.approx([0.2366, 0.7634], abs=1e-4)


def test_what_stands_beside_the_numbers(measured: Ran) -> None:
    found = measured.json

    assert found["with_alternatives"] == {
        "valid_tool_call_rate": 0.8,
        "tool_name_accuracy": 0.6,
        "argument_match_accuracy": 3 / 8,
        "false_tool_call_rate": 0.1,
    }
    assert found["parse_failures"] == {"not_json": 1, "truncated": 1}
    assert found["reasons"]["reason_code_agreement"] | {"ci95": None} == {"value": 1.0, "n": 2, "ci95": None}
    assert found["reasons"]["missing_agreement"] | {"ci95": None} == {"value": 0.0, "n": 1, "ci95": None}
    assert found["confusion"] == {
        "escalate": {"escalate": 1},
        "no_tool": {"no_tool": 2, "track_order": 1, "(invalid)": 1},
        "request_refund": {"request_refund": 1},
        "track_order": {"track_order": 1, "escalate": 1, "no_tool": 1, "(invalid)": 1},
    }
    track_order = {name: (rate["value"], rate["n"]) for name, rate in found["per_tool"]["track_order"].items()}
    assert track_order == {"recall": (0.25, 4), "precision": (0.5, 2), "exact_match": (0.25, 4)}
    kinds = {
        kind: (table["exact_match"]["value"], table["wrong_call_rate"]["value"])
        for kind, table in found["per_kind"].items()
    }
    assert kinds == {"plain": (0.5, 0.5), "trap": (0.0, 1.0)}
    assert (found["notes"], found["gates_missed"]) == ([], [])
    assert found["latency_ms"] == {"p50": None, "p95": None}


def test_each_failure_is_listed(measured: Ran, data: Path) -> None:
    failures = {failure["request"]: failure for failure in measured.json["failures"]}

    assert list(failures) == [
        "wrong arguments",
        "wrong tool",
        "missed call",
        "no JSON",
        "false call",
        "cut off",
    ]
    assert failures["wrong tool"] == {
        "where": f"{data}:3",
        "id": "r2",
        "kind": "plain",
        "request": "wrong tool",
        "gold": track("A-3"),
        "output": json.dumps(escalate("late")),
        "parse_failure": None,
        "is_alternative": True,
    }
    assert failures["cut off"]["parse_failure"] == "truncated"


def test_json_alone_is_on_stdout(measured: Ran) -> None:
    assert json.JSONDecoder().raw_decode(measured.out)[1] == len(measured.out.rstrip("\n"))
    assert measured.err.splitlines()[-1] == "routed 10/10"


def test_predictions_give_the_same_numbers(run: Run, measured: Ran, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "predictions.jsonl"
    assert run("eval", "adapter", "--data", data, "--out", out, "--json").code == 0
    again = run("eval", "--predictions", out, "--json")

    def compared(found: dict[str, Any]) -> dict[str, Any]:
        failures = [failure | {"where": None} for failure in found["failures"]]
        return found | {"failures": failures, "latency_ms": None}

    assert compared(again.json) == compared(measured.json)
    assert again.json["failures"][0]["where"] == f"{out}:2"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["predictions.jsonl", "test.jsonl"]


def test_rows_are_routed_against_their_own_tools(
    run: Run, scripted: ScriptedDecoder, tmp_path: Path, catalogue: Catalogue
) -> None:
    ping = {"name": "ping", "description": "see whether anyone is there.", "parameters": {}}
    openai = {"type": "function", "function": ping}
    target = {"tool": "ping", "arguments": {}}
    scripted.answers.update({"Anyone?": json.dumps(target), "Someone?": json.dumps(target)})
    data = write_rows(
        tmp_path / "test.jsonl",
        [
            {"request": "Anyone?", "target": target, "tools": [openai]},
            {"request": "Someone?", "target": no_tool("chitchat")},
        ],
    )
    found = run("eval", "adapter", "--data", data, "--json").json

    assert scripted.systems == [system_message(catalogue_from_json([ping])), system_message(catalogue)]
    # The same output is right for the one row, and no tool of the other's catalogue.
    assert found["metrics"]["exact_match"]["value"] == 0.5
    assert found["parse_failures"] == {"unknown_tool": 1}


def test_a_refused_request_is_a_parse_failure_also_when_read_back(
    run: Run, scripted: ScriptedDecoder, tmp_path: Path
) -> None:
    scripted.answers["long"] = RequestError("the prompt has 9000 tokens")
    data = write_rows(tmp_path / "test.jsonl", [{"request": "long", "target": track("A-1")}])
    out = tmp_path / "out.jsonl"

    found = run("eval", "adapter", "--data", data, "--out", out, "--json").json
    assert (found["metrics"]["parse_failure_rate"]["value"], found["parse_failures"]) == (1.0, {"request_refused": 1})
    assert run("eval", "--predictions", out, "--json").json["parse_failures"] == {"request_refused": 1}


def test_only_the_first_rows(run: Run, scripted: ScriptedDecoder, data: Path, tmp_path: Path) -> None:
    script(scripted)
    out = tmp_path / "out.jsonl"
    assert run("eval", "adapter", "--data", data, "--limit", 3, "--out", out, "--json").json["n"] == 3
    assert len(scripted.asked) == 3
    assert run("eval", "--predictions", out, "--limit", 2, "--json").json["n"] == 2


@pytest.mark.parametrize(
    ("times", "p50", "p95"),
    [([7.0], 7.0, 7.0), ([4.0, 2.0], 3.0, 4.0), ([float(time) for time in range(20, 0, -1)], 10.5, 19.0)],
)
def test_latency_is_the_median_and_the_95th_percentile(
    times: list[float], p50: float, p95: float, run: Run, scripted: ScriptedDecoder, tmp_path: Path
) -> None:
    for number, time in enumerate(times):
        scripted.answers[f"r{number}"] = Generation(
            json.dumps(track("A")), timings=Timings(time, time / 2, time / 2, 10, 5, 5, 5)
        )
    targets = [{"request": request, "target": track("A")} for request in scripted.answers]
    data = write_rows(tmp_path / "test.jsonl", targets)

    assert run("eval", "adapter", "--data", data, "--json").json["latency_ms"] == {"p50": p50, "p95": p95}


def test_constrained_numbers_stand_beside_the_default_modes(
    run: Run, scripted: ScriptedDecoder, tmp_path: Path
) -> None:
    call, other = json.dumps(track("A")), json.dumps(track("B"))
    scripted.answers.update({"right": call, "saved": "{", "spoilt": "{"})
    forced = Scores(0.5, None, 0.5, overridden=0.75, overridden_tokens=2)
    free = Scores(0.5, None, 0.5, overridden=0.0, overridden_tokens=0)
    scripted.constrained.update(
        right=Generation(call, scores=free),
        saved=Generation(call, scores=free),
        spoilt=Generation(other, scores=forced),
    )
    rows = [{"request": request, "target": track("A")} for request in scripted.answers]
    data = write_rows(tmp_path / "test.jsonl", rows)
    gates = ("--max-wrong-call-rate", "0.1", "--mode", "constrained")
    found = run("eval", "adapter", "--data", data, "--json", *gates)

    assert found.code == 0, "gates hold for the default mode, which calls nothing wrong"
    assert found.json["metrics"]["valid_tool_call_rate"]["value"] == pytest.approx(1 / 3)
    beside = found.json["constrained"]
    assert beside["metrics"]["valid_tool_call_rate"]["value"] == 1.0
    assert beside["metrics"]["wrong_call_rate"]["value"] == pytest.approx(1 / 3)
    assert beside["parse_failures_became"] == {"right": 1, "wrong_call": 1, "wrong_no_tool": 0, "parse_failure": 0}
    assert beside["mean_overridden"] == pytest.approx(0.25)
    text = run("eval", "adapter", "--data", data, "--mode", "constrained").out
    assert "beside the default mode" in text and "right 1, wrong call 1" in text
    assert re.search(r"valid_tool_call_rate +0\.333 +1\.000", text)
    assert "constrained" not in run("eval", "adapter", "--data", data, "--json").json


def test_only_the_first_rows_give_the_latency_and_batches_none(tmp_path: Path, catalogue: Catalogue) -> None:
    class Batching(ScriptedDecoder):
        def decode_many(self, prompts, max_tokens, progress=None):  # type: ignore[no-untyped-def]
            found = [self.decode(one.messages, max_tokens) for one in prompts]
            progress(len(found))
            return [replace(one, timings=Timings(900.0, 1.0, 1.0, 1, 1, 1, 1, batch_size=3)) for one in found]

    call = Generation(json.dumps(track("A")), timings=Timings(5.0, 1.0, 1.0, 1, 1, 1, 1))
    decoder = Batching({f"r{number}": call for number in range(5)})
    rows = [{"request": request, "target": track("A")} for request in decoder.answers]
    examples = read(write_rows(tmp_path / "test.jsonl", rows), catalogue)
    done: list[int] = []
    scored = evaluate(Router(decoder, catalogue), examples, done.append, alone=2)

    assert [one.latency_ms for one in scored] == [5.0, 5.0, None, None, None]
    assert all(one.row.right for one in scored)
    assert done == [1, 2, 5]
    assert Evaluation.of(scored).latency_ms() == {"p50": 5.0, "p95": 5.0}


def test_rows_from_templates_are_named_also_when_read_back(run: Run, scripted: ScriptedDecoder, tmp_path: Path) -> None:
    scripted.answers.update({"a": json.dumps(track("A")), "b": json.dumps(track("B"))})
    data = write_rows(
        tmp_path / "test.jsonl",
        [{"request": "a", "target": track("A"), "template": True}, {"request": "b", "target": track("B")}],
    )
    out = tmp_path / "out.jsonl"
    shown = run("eval", "adapter", "--data", data, "--out", out)

    assert "note: 1 of 2 rows were made from templates" in shown.out
    assert run("eval", "--predictions", out, "--json").json["notes"] == [
        "1 of 2 rows were made from templates: a test of such rows proves little; write requests in your users' words"
    ]


def foreign(path: Path, **fields: Any) -> Path:
    """Outputs as another system writes them: a target and a text, and no more than that."""
    outputs = [track("A-1"), {"tool": "track_order", "arguments": {"order_id": "A-1"}, "thought": "easy"}]
    return write_rows(path, [{"target": track("A-1"), "output": json.dumps(output), **fields} for output in outputs])


def test_foreign_outputs_are_scored_by_a_catalogue_file(run: Run, tmp_path: Path) -> None:
    found = run("eval", "--predictions", foreign(tmp_path / "o.jsonl"), "--catalogue", CATALOGUE, "--json").json

    assert found["metrics"]["exact_match"]["value"] == 0.5
    assert found["parse_failures"] == {"bad_envelope": 1}
    assert found["failures"][0]["request"] == "(not given)"


def test_foreign_outputs_are_scored_by_their_own_tools(run: Run, tmp_path: Path, catalogue: Catalogue) -> None:
    tools = catalogue.to_json()["tools"]
    found = run("eval", "--predictions", foreign(tmp_path / "o.jsonl", tools=tools), "--json").json
    assert found["metrics"]["exact_match"]["value"] == 0.5
    chat = [
        {"role": "system", "content": system_message(catalogue)},
        {"role": "user", "content": "Where is A-1?"},
        {"role": "assistant", "content": json.dumps(track("A-1"))},
    ]
    rows = write_rows(tmp_path / "chat.jsonl", [{"messages": chat, "output": "no idea"}])
    assert run("eval", "--predictions", rows, "--json").json["parse_failures"] == {"not_json": 1}


def test_outputs_without_any_catalogue_are_refused(run: Run, tmp_path: Path) -> None:
    ran = run("eval", "--predictions", foreign(tmp_path / "o.jsonl"), "--json")
    assert (ran.code, ran.out) == (2, "")
    assert "o.jsonl:1: no catalogue" in ran.err


def test_every_unusable_prediction_is_named(run: Run, tmp_path: Path) -> None:
    path = write_rows(
        tmp_path / "outputs.jsonl",
        [
            {"request": "a", "target": track("A"), "output": {"tool": "track_order"}},
            {"request": "a", "target": track("A"), "output": "fine"},
            {"request": "  ", "target": track("A"), "output": "x"},
            {"request": "a", "target": {"tool": "pong", "arguments": {}}, "output": "x"},
            {"request": "a", "output": "x"},
            [1, 2],
        ],
    )
    with path.open("a", encoding="utf-8") as file:
        file.write('{"broken": \n')
    ran = run("eval", "--predictions", path, "--catalogue", CATALOGUE)

    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("Error: 6 prediction(s) can't be scored:\n")
    for line, words in {
        1: "a prediction needs an output that is text",
        3: "the request is empty",
        4: "the target does not fit the catalogue (unknown_tool)",
        5: 'a row needs "messages", or "request" and "target"',
        6: "a prediction needs an output that is text",
        7: "no JSON: ",
    }.items():
        assert f"outputs.jsonl:{line}: {words}" in ran.err
    assert "outputs.jsonl:2" not in ran.err


@pytest.mark.parametrize("name", ["outputs.jsonl", "outputs.txt", "outputs"])
def test_predictions_that_are_not_there(name: str, run: Run, tmp_path: Path) -> None:
    ran = run("eval", "--predictions", tmp_path / name, "--catalogue", CATALOGUE)
    assert (ran.code, ran.out, ran.err) == (2, "", f"Error: {tmp_path / name} does not exist\n")


def test_no_rows_are_an_error(tmp_path: Path, catalogue: Catalogue) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n", encoding="utf-8")
    with pytest.raises(DataError, match="no predictions"):
        read_predictions(empty, catalogue)
    with pytest.raises(DataError, match="no rows"):
        Evaluation.of([])


def test_outputs_with_half_a_character_are_failures_like_others(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "o.jsonl"
    output = json.dumps(escalate("half a \ud83d face"))
    path.write_text(
        json.dumps({"request": "a", "target": escalate("half"), "output": output, "id": 1}) + "\n"
        + json.dumps({"request": "b", "target": escalate("half"), "output": "\ud83d", "id": 2}) + "\n",
        encoding="utf-8",
    )  # fmt: skip
    out = tmp_path / "again.jsonl"
    found = run("eval", "--predictions", path, "--catalogue", CATALOGUE, "--out", out, "--json")

    assert found.json["parse_failures"] == {"lone_surrogate": 2}
    assert "\\ud83d" in found.out
    assert run("eval", "--predictions", out, "--json").json["parse_failures"] == {"lone_surrogate": 2}
    assert run("eval", "--predictions", out).code == 0


def test_scoring_predictions_loads_no_model_library(tmp_path: Path) -> None:
    """Whoever scores outputs in CI needs no GPU, no weights and no seconds of imports."""
    program = (
        "import sys\n"
        "from mlx_router.cli import cli\n"
        "cli.main(sys.argv[1:], standalone_mode=False)\n"
        "heavy = {'mlx', 'mlx_lm', 'transformers', 'datasets', 'torch', 'numpy'}\n"
        "sys.exit(', '.join(sorted(heavy & {name.partition('.')[0] for name in sys.modules})) or None)\n"
    )
    arguments = ["eval", "--predictions", str(foreign(tmp_path / "o.jsonl")), "--catalogue", str(CATALOGUE), "--json"]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=os.environ | {"PYTHONWARNINGS": "error"}, capture_output=True, text=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["n"] == 2


def gate(metric: str, limit: float) -> list[str]:
    costs = ("false_tool_call_rate", "false_call_rate_on_no_tool", "missed_call_rate", "wrong_call_rate")
    kind = "max" if metric in (*costs, "parse_failure_rate") else "min"
    return [f"--{kind}-{metric.replace('_', '-')}", repr(limit)]


@pytest.mark.parametrize("metric", [name for name in BY_HAND if name != "exact_match_with_alternatives"])
def test_every_metric_can_be_a_gate(metric: str, run: Run, scripted: ScriptedDecoder, data: Path) -> None:
    script(scripted)
    value = BY_HAND[metric][0]
    assert value is not None
    command = ("eval", "adapter", "--data", data, "--json")
    met = run(*command, *gate(metric, value))
    assert (met.code, met.json["gates_missed"]) == (0, [])

    worse = 0.01 if gate(metric, value)[0].startswith("--min") else -0.01
    missed = run(*command, *gate(metric, value + worse))
    assert missed.code == 1
    assert [line for line in missed.err.splitlines() if line.startswith("gate missed: ")] == [
        f"gate missed: {line}" for line in missed.json["gates_missed"]
    ]
    assert missed.json["gates_missed"][0].startswith(f"{metric} is {value:.4f}; it must be at ")


def test_all_missed_gates_are_named(run: Run, scripted: ScriptedDecoder, data: Path) -> None:
    script(scripted)
    flags = [*gate("tool_name_accuracy", 0.95), *gate("wrong_call_rate", 0.02), *gate("exact_match", 0.1)]
    ran = run("eval", "adapter", "--data", data, *flags)

    assert ran.code == 1
    assert ran.err.splitlines()[-2:] == [
        "gate missed: tool_name_accuracy is 0.5000; it must be at least 0.95",
        "gate missed: wrong_call_rate is 0.3000; it must be at most 0.02",
    ]
    assert "tool_name_accuracy" in ran.out


@pytest.mark.parametrize(("metric", "limit"), [("argument_match_on_calls", 0.0), ("missed_call_rate", 1.0)])
def test_what_was_not_measured_passes_no_gate(metric: str, limit: float, run: Run, tmp_path: Path) -> None:
    target = no_tool("chitchat")
    rows = write_rows(tmp_path / "o.jsonl", [{"target": target, "output": json.dumps(target)}])
    ran = run("eval", "--predictions", rows, "--catalogue", CATALOGUE, "--json", *gate(metric, limit))

    assert ran.code == 1
    assert ran.json["metrics"][metric] == {"value": None, "n": 0, "ci95": None}
    assert f"{metric} was not measured" in ran.err


def test_nothing_parsed_gives_no_interval(run: Run, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "o.jsonl", [{"target": track("A"), "output": "no idea"}])
    found = run("eval", "--predictions", rows, "--catalogue", CATALOGUE, "--json").json["metrics"]
    assert found["argument_match_accuracy"] == {"value": 0.0, "n": 0, "ci95": None, "max": 1.0}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["adapter"], "eval needs an adapter folder and --data"),
        (["--data", "x.jsonl"], "eval needs an adapter folder and --data"),
        (["adapter", "--predictions", "o.jsonl"], "--predictions takes no adapter"),
        (["adapter", "--data", "x.jsonl", "--min-exact-match", "1.5"], "--min-exact-match"),
        (["adapter", "--data", "x.jsonl", "--min-exact-match", "high"], "--min-exact-match"),
        (["adapter", "--data", "missing.jsonl"], "missing.jsonl does not exist"),
        (["adapter", "--data", "x.jsonl", "--out", "nowhere/out.jsonl"], "there is no folder nowhere"),
    ],
)
def test_what_can_not_run_exits_with_2(arguments: list[str], words: str, run: Run, scripted: ScriptedDecoder) -> None:
    ran = run("eval", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert words in ran.err
    assert scripted.asked == []


def test_the_library_gives_what_the_command_prints(catalogue: Catalogue, data: Path, measured: Ran) -> None:
    decoder = ScriptedDecoder()
    script(decoder)
    done: list[int] = []
    scored = evaluate(Router(decoder, catalogue), read(data, catalogue), done.append)

    assert done == list(range(1, 11))
    assert json.loads(json.dumps(Evaluation.of(scored).to_json())) | {"gates_missed": []} == measured.json
    write_predictions(scored, data.with_name("out.jsonl"))
    assert [one.outcome for one in read_predictions(data.with_name("out.jsonl"))] == [one.outcome for one in scored]
