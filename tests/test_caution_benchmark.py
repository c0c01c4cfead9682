"""The benchmark of caution: which commands it runs, that it goes on where it stopped, and its table."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import ROOT, write_rows


@pytest.fixture
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("caution_benchmark", ROOT / "benchmarks" / "caution.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class Commands:
    """Takes commands instead of a process: training writes what marks an adapter, measuring gives figures."""

    def __init__(self) -> None:
        self.run: list[tuple[str, ...]] = []

    def __call__(self, *arguments: str) -> str:
        self.run.append(arguments)
        if arguments[0] == "train":
            folder = Path(arguments[arguments.index("--adapter" if "--adapter" in arguments else "--resume") + 1])
            folder.mkdir(exist_ok=True)
            (folder / "router.json").write_text("{}", encoding="utf-8")
            return ""
        value = 0.2 if "none" in arguments[1] else 0.1
        metrics = {name: {"value": value, "n": 100} for name in METRICS}
        slices = {"negated": {"metrics": {name: {"value": 0.5, "n": 10} for name in METRICS}}}
        return json.dumps({"metrics": metrics, "slices": slices})


METRICS = ("wrong_call_rate", "false_call_rate_on_no_tool", "missed_call_rate", "exact_match", "tool_name_accuracy")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    for split in ("train", "valid", "test"):
        write_rows(tmp_path / "data" / f"{split}.jsonl", [{"request": split}])
    return tmp_path


def main(bench: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> list[tuple[str, ...]]:
    commands = Commands()
    monkeypatch.setattr(bench, "command", commands)
    given = ["caution.py", str(folder / "data"), "--out", str(folder / "runs"), *arguments]
    monkeypatch.setattr("sys.argv", given)
    bench.main()
    return commands.run


def test_it_trains_and_measures_each_option_and_never_reads_the_test(
    bench: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = main(bench, folder, monkeypatch, "--only", "none,remove_tools", "--stress", "5")
    assert [words[0] for words in run] == ["train", "eval", "stress"] * 2
    assert ("--remove-tools", "0.1") not in zip(run[0], run[0][1:], strict=False)
    assert ("--remove-tools", "0.1") in zip(run[3], run[3][1:], strict=False)
    assert not any("test.jsonl" in word for words in run for word in words)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| option | wrong calls |") and "wrong calls, negated" in lines[0]
    assert lines[2].startswith("| `none` | 0.200 (0.133–0.289) |")
    assert lines[3].startswith("| `remove_tools` | 0.100 (0.055–0.174) |")


def test_what_is_done_is_not_done_again_and_what_was_stopped_goes_on(
    bench: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(main(bench, folder, monkeypatch, "--only", "none")) == 2
    assert main(bench, folder, monkeypatch, "--only", "none") == []
    stopped = folder / "runs" / "all-0" / "checkpoints"
    stopped.mkdir(parents=True)
    (stopped / "state-000050.safetensors").write_bytes(b"")
    run = main(bench, folder, monkeypatch, "--only", "all")
    assert run[0] == ("train", "--resume", str(folder / "runs" / "all-0"))


def test_runs_with_other_settings_are_not_mixed(
    bench: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main(bench, folder, monkeypatch, "--only", "mine", "--option", "mine", "no_tool_share=0.4")
    with pytest.raises(SystemExit, match="give another --out"):
        main(bench, folder, monkeypatch, "--only", "mine", "--option", "mine", "no_tool_share=0.5")
    with pytest.raises(SystemExit, match="there is no option nonsense"):
        main(bench, folder, monkeypatch, "--only", "nonsense")


def test_several_seeds_are_shown_with_their_range(bench: ModuleType) -> None:
    metrics: list[dict[str, Any]] = [{"value": value, "n": 100} for value in (0.1, 0.3)]
    assert bench.cell(metrics) == "0.200 (0.133–0.289) [0.100–0.300]"
    assert bench.cell([{"value": None, "n": 0}]) == "not measured"
