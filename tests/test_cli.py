"""The command line: what stands on stdout and what on stderr, exit codes, and a training run from end to end."""

import json
import os
import re
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from conftest import CATALOGUE, KNOWN, Run, ScriptedDecoder, known_rows, write_rows

CALL = '{"tool":"track_order","arguments":{"order_id":"ORD-1234"}}'
NO_TOOL = '{"tool":"no_tool","reason":"chitchat"}'
COMMAND = [sys.executable, "-c", "from mlx_router.cli import main; main()"]
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("MLX_ROUTER_")} | {
    "HF_HUB_OFFLINE": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


def started(*arguments: object, **options: Any) -> "subprocess.Popen[str]":
    """`mlx-router` in a process of its own."""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)], env=ENVIRONMENT, text=True, encoding="utf-8", **(pipes | options)
    )


# Errors


def test_a_wrong_command_is_answered_with_the_likely_one(run: Run) -> None:
    ran = run("rout", "adapter", "Hi!")
    assert (ran.code, ran.out) == (2, "")
    assert "No such command 'rout'. Did you mean 'route'?" in ran.err
    assert "Did you mean" not in run("xyzzy").err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["eval", "--dta", "x"], "--data"),
        (["train", "--learning-rte", "1"], "--learning-rate"),
        (["data", "chek", "x"], "check"),
        (["catalogue", "chek", "x"], "check"),
    ],
)
def test_a_wrong_option_or_subcommand_is_answered_with_the_likely_one(
    arguments: list[str], words: str, run: Run
) -> None:
    ran = run(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert f"'{words}'" in ran.err.partition("Did you mean")[2]


def test_an_expected_error_is_a_message_and_a_hint_on_stderr(tmp_path: Path) -> None:
    with started("route", tmp_path / "nowhere", "Hi!", "--json") as process:
        out, err = process.communicate(timeout=60)

    assert (process.returncode, out) == (2, "")
    assert err == (
        f"Error: there is no folder {tmp_path / 'nowhere'}\n\nhint: train one with: mlx-router train --config …\n"
    )


def test_no_command_shows_the_help_and_could_not_run(run: Run) -> None:
    ran = run()
    assert (ran.code, ran.out) == (2, "")
    assert "Commands:" in ran.err
    help_ = run("--help")
    assert (help_.code, help_.err) == (0, "")
    assert run("--version").out.startswith("mlx-router, version ")


# route


def test_a_call_is_printed_as_the_model_was_asked_to_write_it(run: Run, scripted: ScriptedDecoder) -> None:
    scripted.answers["Where is it?"] = ' {"arguments": {"order_id": "Ü-1"}, "tool": "track_order"}\n'
    ran = run("route", "adapter", "Where is it?")
    assert (ran.code, ran.out) == (0, '{"tool":"track_order","arguments":{"order_id":"Ü-1"}}\n')


def test_no_tool_is_a_decision_and_no_failure(run: Run, scripted: ScriptedDecoder) -> None:
    scripted.answers["Hi!"] = NO_TOOL
    ran = run("route", "adapter", "Hi!")
    assert (ran.code, ran.out) == (0, NO_TOOL + "\n")


def test_an_invalid_output_exits_with_1_on_one_line(run: Run, scripted: ScriptedDecoder) -> None:
    scripted.answers["Hi!"] = "Hello!\n\x1b[31mHow are you?"
    ran = run("route", "adapter", "Hi!")
    assert (ran.code, ran.out) == (1, "invalid output (not_json): Hello!\\n\\x1b[31mHow are you?\n")
    ran = run("route", "adapter", "Hi!", "--json")
    assert (ran.code, ran.json["valid"], ran.json["action"]) == (1, False, "rephrase")
    assert ran.json["raw"] == "Hello!\n\x1b[31mHow are you?"


def test_an_invalid_output_is_not_logged_to_the_terminal_as_well() -> None:
    program = (
        "from conftest import CATALOGUE, ScriptedDecoder\n"
        "from mlx_router.cli import main\n"
        "from mlx_router.interop import load_catalogue\n"
        "from mlx_router.router import Router\n"
        "Router.load = lambda *_, **__: Router(ScriptedDecoder(otherwise='no'), load_catalogue(CATALOGUE))\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "route", "adapter", "Hi!"],
        env=ENVIRONMENT, cwd=Path(__file__).parent, capture_output=True, text=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (1, "invalid output (not_json): no\n", "")


@pytest.mark.parametrize("request_", ["", "  ", "x" * 100_001])
def test_a_request_that_can_not_be_routed_exits_with_2(request_: str, run: Run, scripted: ScriptedDecoder) -> None:
    ran = run("route", "adapter", request_, "--json")
    assert (ran.code, ran.out, scripted.asked) == (2, "", [])
    assert ran.err.startswith("Error: the request ")


def test_requests_from_stdin_are_answered_line_by_line(run: Run, scripted: ScriptedDecoder) -> None:
    scripted.answers.update({"Hi!": NO_TOOL, "Où est-il ?": CALL})
    ran = run("route", "adapter", "-", stdin="Hi!\n\n   \r\nOù est-il ?\r\nHi!".encode())

    assert (ran.code, ran.out.splitlines()) == (0, [NO_TOOL, CALL, NO_TOOL])
    assert scripted.requests == ["Hi!", "Où est-il ?", "Hi!"]
    assert run("route", "adapter", "-", stdin=b"").out == ""


def test_a_bad_line_of_stdin_keeps_its_place_and_stops_nothing(run: Run, scripted: ScriptedDecoder) -> None:
    scripted.answers.update({"Hi!": NO_TOOL, "what?": "no idea"})
    stdin = b"Hi!\n\ncaf\xe9\nwhat?\nHi!\n"
    ran = run("route", "adapter", "-", stdin=stdin)

    assert (ran.code, ran.out.splitlines()) == (2, [NO_TOOL, "", "invalid output (not_json): no idea", NO_TOOL])
    assert "Error: line 3: the request is not UTF-8" in ran.err
    answers = run("route", "adapter", "-", "--json", stdin=stdin).lines
    assert [answer.get("tool") for answer in answers] == ["no_tool", None, None, "no_tool"]
    assert (answers[1]["line"], answers[1]["error"][:27]) == (3, "the request is not UTF-8: '")
    assert run("route", "adapter", "-", stdin=b"what?\nHi!\n").code == 1


def test_another_catalogue_for_the_route(run: Run, scripted: ScriptedDecoder, tmp_path: Path) -> None:
    scripted.answers["Anyone?"] = '{"tool":"ping","arguments":{}}'
    tools = tmp_path / "tools.json"
    tools.write_text('[{"name": "ping", "description": "see whether anyone is there."}]', encoding="utf-8")
    ran = run("route", "adapter", "Anyone?", "--catalogue", tools, "--json")

    assert (ran.code, ran.json["tool"], ran.json["catalogue_seen"]) == (0, "ping", False)
    assert run("route", "adapter", "Anyone?", "--catalogue", tmp_path / "none.json").code == 2


def test_what_a_trained_adapter_answers_in_a_process_of_its_own(adapter: Path) -> None:
    with started("route", adapter, "-", "--json") as process:
        out, err = process.communicate("\n".join([*KNOWN, "", ""]), timeout=120)

    answers = [json.loads(line) for line in out.splitlines()]
    assert (process.returncode, err) == (0, "")
    for answer, target in zip(answers, KNOWN.values(), strict=True):
        assert {name: answer[name] for name in target} == target
        assert (answer["valid"], answer["catalogue_seen"]) == (True, True)
        assert answer["timings"]["total_ms"] > 0


# Interrupts


def test_ctrl_c_exits_with_130(run: Run, scripted: ScriptedDecoder, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(scripted, "decode", interrupted)
    ran = run("route", "adapter", "Hi!")
    assert (ran.code, ran.out) == (130, "")
    assert ran.err.strip() == "Interrupted."


def test_ctrl_c_in_a_process_of_its_own(adapter: Path) -> None:
    with started("route", adapter, "-") as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write("Hi!\n")
        process.stdin.flush()
        assert process.stdout.readline() == NO_TOOL + "\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)

    assert process.returncode == 130
    assert err.strip() == "Interrupted."


def test_a_reader_that_goes_away_gets_no_traceback(adapter: Path) -> None:
    with started("route", adapter, "-", stderr=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        process.stdin.write("Hi!\n")
        process.stdin.flush()
        process.stdout.readline()
        process.stdout.close()
        process.stdin.write("Hi!\n" * 3)
        process.stdin.close()
        err = process.stderr.read()
        process.wait(60)
    assert "Traceback" not in err


# train

needs_budget = pytest.mark.skipif(find_spec("mlx_router.budget") is None, reason="`train` is not whole yet")


@pytest.fixture
def recipe(base: Path, tmp_path: Path) -> Path:
    """A project folder with a recipe of a few updates."""
    folder = tmp_path / "project"
    folder.mkdir()
    write_rows(folder / "train.jsonl", known_rows(times=4))
    write_rows(folder / "valid.jsonl", known_rows())
    (folder / "train.yaml").write_text(
        f"model: {base}\ncatalogue: {CATALOGUE}\ntrain: train.jsonl\nvalid: valid.jsonl\nadapter: out/adapter\n"
        "epochs: 1\nmax_tokens: 80\nrank: 2\nbatch_size: 4\nseed: 1\nlog_every: 1\n",
        encoding="utf-8",
    )
    return folder / "train.yaml"


@needs_budget
def test_training_evaluating_and_routing(recipe: Path, run: Run) -> None:
    ran = run("train", "--config", recipe)
    folder = recipe.parent / "out" / "adapter"

    assert (ran.code, ran.out) == (0, "")
    lines = ran.err.splitlines()
    assert any(line.startswith("20 rows, 3 tools, 5 updates in 1 epochs") for line in lines)
    assert any(line.startswith("update     5/5  epoch 1.00  loss ") and "ETA 0:00" in line for line in lines)
    assert re.match(r"done in \d+:\d\d: ", lines[-1]) and f": {folder} holds epoch-001.safetensors" in lines[-1]

    evaluated = run("eval", folder, "--data", recipe.parent / "valid.jsonl", "--allow-leaks", "--json")
    assert evaluated.json["n"] == 5
    assert evaluated.json["latency_ms"]["p50"] > 0
    routed = run("route", folder, "Hi!", "--json")
    assert routed.code in (0, 1)
    assert routed.json["catalogue_seen"] is True


@needs_budget
def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(
    recipe: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLX_ROUTER_TRAIN_BATCH_SIZE", "5")
    monkeypatch.setenv("MLX_ROUTER_TRAIN_SEED", "7")
    monkeypatch.setenv("MLX_ROUTER_TRAIN_LEARNING_RATE", "2e-3")
    out = recipe.parent / "2026"
    monkeypatch.chdir(recipe.parent)
    ran = run("train", "--config", recipe, "--seed", 3, "--adapter", "2026", "--train-on", "[q_proj, v_proj]")
    found = json.loads((out / "router.json").read_text(encoding="utf-8"))["config"]

    assert ran.code == 0
    wanted = {"seed": 3, "batch_size": 5, "learning_rate": 2e-3, "rank": 2, "lora_alpha": 32.0, "adapter": "2026"}
    assert {name: found[name] for name in wanted} == wanted
    assert found["train_on"] == ["q_proj", "v_proj"]


@needs_budget
def test_events_are_ndjson_on_stdout(recipe: Path) -> None:
    with started("train", "--config", recipe, "--json") as process:
        out, err = process.communicate(timeout=120)
    events = [json.loads(line) for line in out.splitlines()]

    assert (process.returncode, "Traceback" in err) == (0, False)
    kinds = [event["event"] for event in events if event["event"] != "note"]
    assert kinds == ["start", *["progress"] * 5, "valid", "checkpoint", "plot", "done"]
    progress = events[kinds.index("progress")]
    assert (progress["update"], progress["updates"]) == (1, 5)
    assert all(progress[name] > 0 for name in ("loss", "tokens_per_second", "peak_memory_bytes", "elapsed_s"))
    assert (Path(events[-1]["adapter"]) / "router.json").is_file()


@needs_budget
def test_an_interrupted_run_leaves_no_finished_adapter(recipe: Path, run: Run) -> None:
    with started("train", "--config", recipe, "--epochs", 500, "--json") as process:
        assert process.stdout is not None
        while json.loads(process.stdout.readline())["event"] != "progress":
            pass
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)

    assert (process.returncode, err.splitlines()[-1]) == (130, "Interrupted.")
    ran = run("route", recipe.parent / "out" / "adapter", "Hi!")
    assert (ran.code, "no finished adapter" in ran.err) == (2, True)


@needs_budget
def test_a_finished_adapter_is_not_overwritten_unasked(recipe: Path, run: Run) -> None:
    assert run("train", "--config", recipe, "--max-updates", 1).code == 0
    manifest = recipe.parent / "out" / "adapter" / "router.json"
    before = manifest.read_text(encoding="utf-8")

    ran = run("train", "--config", recipe, "--max-updates", 2)
    assert (ran.code, ran.out, manifest.read_text(encoding="utf-8")) == (2, "", before)
    assert "already holds a finished adapter" in ran.err
    assert "--overwrite" in ran.err.splitlines()[-1]
    assert run("train", "--config", recipe, "--max-updates", 2, "--overwrite").code == 0
    assert json.loads(manifest.read_text(encoding="utf-8"))["config"]["max_updates"] == 2


def test_every_problem_of_flags_and_file_is_named(recipe: Path, run: Run) -> None:
    recipe.write_text(recipe.read_text(encoding="utf-8") + "learning_rte: 1\n", encoding="utf-8")
    ran = run("train", "--config", recipe, "--epochs", "many", "--lr-schedule", "steep", "--rank", "0")

    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"Error: {recipe} has 4 problem(s):\n")
    for words in ("did you mean 'learning_rate'", "(got 'many')", "(got 'steep')", "rank: ", "(got 0)"):
        assert words in ran.err


def test_the_environment_is_held_to_the_same_rules(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLX_ROUTER_TRAIN_EPOCHS", "often")
    ran = run("train", "--train", "rows.jsonl")
    assert ran.code == 2
    assert "epochs: " in ran.err and "'often'" in ran.err


@needs_budget
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--train", "nowhere.jsonl"], "nowhere.jsonl does not exist"),
        (["--model", "./nowhere"], "there is no model folder './nowhere'"),
        (["--train-on", "q_prj"], "no layer is called 'q_prj'"),
        (["--catalogue", "nowhere.json"], "nowhere.json"),
        (["--max-seq-length", "20"], "would be cut at 20"),
    ],
)
def test_what_can_not_be_trained_exits_with_2(flags: list[str], words: str, recipe: Path, run: Run) -> None:
    ran = run("train", "--config", recipe, *flags)
    assert (ran.code, ran.out) == (2, "")
    assert words in ran.err
    assert not (recipe.parent / "out" / "adapter" / "router.json").exists()


@needs_budget
def test_a_dry_run_writes_nothing(recipe: Path, run: Run) -> None:
    ran = run("train", "--config", recipe, "--dry-run", "--json")
    assert ran.code == 0
    assert isinstance(ran.json, dict)
    assert not (recipe.parent / "out").exists()
