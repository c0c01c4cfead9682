"""Gates from a file and from flags, on points and on intervals, and the pages that a CI shows."""

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import yaml
from conftest import CATALOGUE, Run, write_rows

from mlx_router.calls import NoTool
from mlx_router.cli_eval import eval_
from mlx_router.errors import ConfigError
from mlx_router.gates import NAMES, Case, judge, markdown, merged, read_gates, write_junit
from mlx_router.metrics import Gate, Row, measure

ORDER = {"tool": "track_order", "arguments": {"order_id": "A-1"}}
ANGRY = {"tool": "escalate", "arguments": {"reason": "angry"}}
HELLO = {"tool": "no_tool", "reason": "chitchat"}


def gates_file(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def predictions(path: Path, right: int = 9, wrong: int = 1) -> Path:
    """Rows that want a call, routed rightly, and then rows that get another tool."""
    rows = [{"request": f"right {number}", "target": ORDER, "output": json.dumps(ORDER)} for number in range(right)]
    rows += [{"request": f"wrong {number}", "target": ORDER, "output": json.dumps(ANGRY)} for number in range(wrong)]
    return write_rows(path, rows)


@pytest.fixture
def ten(tmp_path: Path) -> list[object]:
    """The command that scores nine right rows and one wrong call."""
    return ["eval", "--predictions", predictions(tmp_path / "o.jsonl"), "--catalogue", CATALOGUE]


def test_gates_are_read_in_order(tmp_path: Path) -> None:
    path = gates_file(tmp_path / "g.yaml", "exact_match: {min: 0.9}\nwrong_call_rate:\n  max: 2e-2\n")
    assert read_gates(path) == [Gate("exact_match", 0.9), Gate("wrong_call_rate", 0.02)]


def test_every_measured_metric_can_stand_in_a_file() -> None:
    target = NoTool(reason="chitchat")
    assert sorted(NAMES) == sorted(measure([Row(target, target)]))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("exact_macth: {min: 0.9}", "unknown metric 'exact_macth'; did you mean 'exact_match'?"),
        ("zzz: {min: 0.9}", "unknown metric 'zzz'"),
        ("exact_match: {max: 0.9}", "exact_match: takes min, since a higher value is better"),
        ("wrong_call_rate: {min: 0.9}", "wrong_call_rate: takes max, since a lower value is better"),
        ("exact_match: 0.9", "exact_match: must be {min: RATE}, not 0.9"),
        ("exact_match: {min: 0.5, max: 0.9}", "exact_match: must be {min: RATE}"),
        ("exact_match: {minimum: 0.5}", "exact_match: must be {min: RATE}"),
        ("exact_match: {min: 95}", "exact_match: min must be a number from 0 to 1, not 95"),
        ("exact_match: {min: .nan}", "exact_match: min must be a number from 0 to 1, not nan"),
        ("exact_match: {min: true}", "exact_match: min must be a number from 0 to 1, not True"),
        ("exact_match: {min: high}", "exact_match: min must be a number from 0 to 1, not 'high'"),
        ("exact_match: {min: }", "exact_match: min must be a number from 0 to 1, not None"),
        ("- exact_match", "has no gates"),
        ("", "has no gates"),
        ("a: [", "is no YAML"),
    ],
)
def test_a_file_that_is_no_gates_ends_the_run(
    text: str, words: str, run: Run, ten: list[object], tmp_path: Path
) -> None:
    ran = run(*ten, "--gates", gates_file(tmp_path / "g.yaml", text))
    assert (ran.code, ran.out) == (2, "")
    assert words in ran.err


def test_all_problems_of_a_file_are_named(tmp_path: Path) -> None:
    path = gates_file(tmp_path / "g.yaml", "exact: {min: 0.9}\nexact_match: {max: 1}\nmissed_call_rate: {max: 1}\n")
    with pytest.raises(ConfigError) as error:
        read_gates(path)
    assert len(error.value.message.splitlines()) == 3
    assert "2 problem(s)" in error.value.message


def test_a_missing_file_ends_the_run(run: Run, ten: list[object], tmp_path: Path) -> None:
    ran = run(*ten, "--gates", tmp_path / "none.yaml")
    assert (ran.code, ran.out) == (2, "")
    assert "none.yaml can't be read" in ran.err


def test_a_flag_beats_the_file(run: Run, ten: list[object], tmp_path: Path) -> None:
    path = gates_file(tmp_path / "g.yaml", "exact_match: {min: 0.95}\nwrong_call_rate: {max: 0.5}\n")
    assert run(*ten, "--gates", path).code == 1
    assert run(*ten, "--gates", path, "--min-exact-match", "0.9").code == 0
    # The file's other gate stands.
    assert run(*ten, "--gates", path, "--min-exact-match", "0.9", "--max-wrong-call-rate", "0.05").code == 1
    assert merged([Gate("exact_match", 0.95)], {"exact_match": 0.0, "missed_call_rate": None}) == [
        Gate("exact_match", 0.0)
    ]


def test_the_worse_end_of_the_interval(run: Run, ten: list[object]) -> None:
    """Wilson's interval of 9/10 is 0.5958 … 0.9821, that of 1/10 mirrors it."""
    on_interval = [*ten, "--gate-on", "ci"]
    assert run(*ten, "--min-exact-match", "0.9", "--max-wrong-call-rate", "0.1").code == 0
    assert run(*on_interval, "--min-exact-match", "0.595", "--max-wrong-call-rate", "0.405").code == 0
    missed = run(*on_interval, "--min-exact-match", "0.6", "--max-wrong-call-rate", "0.4")
    assert missed.code == 1
    assert missed.err.splitlines() == [
        "gate missed: at the worse end of its 95 % interval, exact_match is 0.5958; it must be at least 0.6",
        "gate missed: at the worse end of its 95 % interval, wrong_call_rate is 0.4042; it must be at most 0.4",
    ]


def test_what_has_no_interval_passes_no_gate_on_it() -> None:
    target = NoTool(reason="chitchat")
    metrics = measure([Row(target, target)])
    verdict = judge([Gate("argument_match_on_calls", 0.0)], metrics, "ci")[0]
    assert "was not measured" in str(verdict.problem)


def test_junit_has_a_case_for_each_gate(run: Run, ten: list[object], tmp_path: Path) -> None:
    path = tmp_path / "gates.xml"
    flags = ["--min-exact-match", "0.95", "--max-wrong-call-rate", "0.1"]
    assert run(*ten, *flags, "--junit", path).code == 1

    suite = ET.parse(path).getroot()[0]
    assert [(case.get("classname"), case.get("name"), len(case)) for case in suite.iter("testcase")] == [
        ("mlx_router.gates", "exact_match ≥ 0.95", 1),
        ("mlx_router.gates", "wrong_call_rate ≤ 0.1", 0),
    ]
    failure = suite.find("testcase/failure")
    assert failure is not None
    assert failure.get("message") == "exact_match is 0.9000; it must be at least 0.95"
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "2", "failures": "1", "errors": "0", "skipped": "0"
    }  # fmt: skip
    values = {found.get("name"): found.get("value") for found in suite.iter("property")}
    assert (values["exact_match"], values["false_call_rate_on_no_tool"]) == ("0.9000", "")


def test_junit_has_a_case_for_each_row_on_request(run: Run, tmp_path: Path) -> None:
    rows = [
        {"request": "a", "target": ORDER, "output": json.dumps(ORDER)},
        {"request": 'b <&"]]>\x0bb', "target": ORDER, "output": "no idea \x00 \ud800 <b>"},
        {"request": "c", "target": ORDER, "alternatives": [ANGRY], "output": json.dumps(ANGRY)},
        {"request": "d", "target": HELLO, "output": json.dumps(ANGRY)},
    ]
    out = tmp_path / "o.jsonl"
    out.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    path = tmp_path / "rows.xml"
    assert run("eval", "--predictions", out, "--catalogue", CATALOGUE, "--junit", path, "--junit-rows").code == 0

    cases = list(ET.parse(path).getroot().iter("testcase"))
    assert [str(case.get("name")).partition("o.jsonl:")[2] for case in cases] == [
        "1: a", '2: b <&"]]>\\x0bb', "3: c", "4: d"
    ]  # fmt: skip
    failures = [case.find("failure") for case in cases]
    assert [None if failure is None else failure.get("message") for failure in failures] == [
        None, "invalid output (lone_surrogate)", None, "another decision"
    ]  # fmt: skip
    # What XML can't hold at all is replaced, everything else comes back.
    assert failures[1] is not None and str(failures[1].text).endswith("output   no idea \ufffd \ufffd <b>")


def test_junit_counts_skipped_cases_apart(tmp_path: Path) -> None:
    cases = [Case("a", "one", "why", skipped=True), Case("a", "two", "bad", "detail"), Case("a", "three", seconds=1.5)]
    write_junit(tmp_path / "x.xml", cases, {})
    suite = ET.parse(tmp_path / "x.xml").getroot()[0]
    counts = [suite.get(name) for name in ("tests", "failures", "skipped", "time")]
    assert counts == ["3", "1", "1", "1.500"]
    assert [child.tag for child in suite] == ["properties", *["testcase"] * 3, "system-out", "system-err"]


def test_the_summary_is_appended_as_tables(run: Run, ten: list[object], tmp_path: Path) -> None:
    path = gates_file(tmp_path / "summary.md", "before\n")
    assert run(*ten, "--min-exact-match", "0.95", "--summary", path).code == 1
    assert run(*ten, "--min-exact-match", "0.9", "--summary", path).code == 0

    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "before"
    assert [line.rpartition(": ")[2] for line in lines if line.startswith("### ")] == ["failed", "passed"]
    assert "| `exact_match` ≥ 0.95 | 0.900 | 0.596 … 0.982 | 10 | ❌ missed |" in lines
    assert "| `exact_match` ≥ 0.9 | 0.900 | 0.596 … 0.982 | 10 | ✅ met |" in lines
    assert "| `missed_call_rate` | 0.000 | 0.000 … 0.278 | 10 |" in lines
    assert "<details><summary>1 wrong call</summary>" in lines


def test_nothing_in_a_summary_becomes_markup(run: Run, tmp_path: Path) -> None:
    row = {"request": "a | b\n<script>`*[x](y)", "target": HELLO, "output": json.dumps(ANGRY)}
    out = write_rows(tmp_path / "o.jsonl", [row])
    run("eval", "--predictions", out, "--catalogue", CATALOGUE, "--summary", tmp_path / "s.md")
    line = next(line for line in (tmp_path / "s.md").read_text(encoding="utf-8").splitlines() if "script" in line)
    assert line.startswith("| a \\| b\\\\n&lt;script&gt;\\`\\*\\[x\\](y) | ")
    assert line.replace("\\|", "").count("|") == 4


def test_a_summary_without_an_evaluation_says_why() -> None:
    text = markdown("adapter", None, [], ["leaks: 1 test row: 1 trained on"], passed=False)
    assert text == "### mlx-router eval adapter: failed\n\n- leaks: 1 test row: 1 trained on"


@pytest.mark.parametrize("flag", ["--junit", "--summary"])
def test_a_page_without_a_folder_ends_the_run(flag: str, run: Run, ten: list[object]) -> None:
    ran = run(*ten, flag, "nowhere/page")
    assert (ran.code, ran.out) == (2, "")
    assert "there is no folder nowhere" in ran.err


def test_help_shows_few_gates_and_all_work(run: Run, ten: list[object]) -> None:
    shown = run("eval", "--help").out
    assert "--max-wrong-call-rate" in shown
    assert "--max-missed-call-rate" not in shown
    assert run(*ten, "--max-missed-call-rate", "0").code == 0


# docs/ci.md


@pytest.fixture
def blocks() -> list[str]:
    """The YAML of docs/ci.md: the gates file, and the workflow."""
    text = (Path(__file__).parent.parent / "docs" / "ci.md").read_text(encoding="utf-8")
    return re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)


def test_the_gates_of_the_docs_are_gates(blocks: list[str], tmp_path: Path) -> None:
    assert len(read_gates(gates_file(tmp_path / "g.yaml", blocks[0]))) == 4


def test_the_workflow_of_the_docs_uses_flags_that_exist(blocks: list[str]) -> None:
    steps = yaml.safe_load(blocks[1])["jobs"]["gates"]["steps"]
    command = next(step["run"] for step in steps if step.get("name") == "Evaluate")
    flags = re.findall(r"--[a-z-]+", command)
    assert len(flags) == 6
    assert set(flags) <= {option for parameter in eval_.params for option in parameter.opts}


@pytest.mark.parametrize("revision", ["abc123", None])
def test_the_workflow_of_the_docs_reads_the_base(blocks: list[str], revision: str | None, tmp_path: Path) -> None:
    steps = yaml.safe_load(blocks[1])["jobs"]["gates"]["steps"]
    program = next(step["run"] for step in steps if step.get("id") == "base").partition("<<'END'\n")[2]
    (tmp_path / "router.json").write_text(json.dumps({"base": {"name": "org/base", "revision": revision}}), "utf-8")
    done = subprocess.run(
        [sys.executable, "-c", program.removesuffix("END\n")],
        env={"ADAPTER": str(tmp_path)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == f"name=org/base\nrevision={revision or ''}\n"


def test_gates_can_be_set_by_environment(
    monkeypatch: pytest.MonkeyPatch, run: Run, ten: list[object], tmp_path: Path
) -> None:
    monkeypatch.setenv("MLX_ROUTER_EVAL_GATES", str(gates_file(tmp_path / "g.yaml", "exact_match: {min: 0.95}")))
    assert run(*ten).code == 1
