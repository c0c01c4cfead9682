"""The routing benchmark on random models of kilobytes: scripts are followed, and every figure is there."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import ROOT, known_rows, write_rows

from mlx_router.decoder import GreedyDecoder
from mlx_router.model import load_base
from mlx_router.peers import MlxLmDecoder
from mlx_router.router import Router

FIGURES = {
    "passes_per_call_median",
    "speedup_vs_mlx_lm_generate",
    "speedup_vs_mlx_lm_prompt_cache",
    "p50_ratio_100_to_3_tools",
    "batch_speedup",
    "differences_from_plain_greedy",
    "vs_llama_cpp",
}


@pytest.fixture
def routing(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark's program, with catalogues of 3 to 5 tools and nothing measured for long."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    module = importlib.import_module("routing")
    monkeypatch.setattr(module, "TOOL_COUNTS", (3, 4, 5))
    monkeypatch.setattr(module, "pass_seconds", lambda model, prefix: {1: 0.001, 65: 0.002})
    return module


def quiet(line: str) -> None:
    """Progress that nobody reads."""


def test_the_hundred_tools_are_a_hundred_and_begin_with_supports(routing: ModuleType) -> None:
    names = [tool.name for tool in routing.all_tools()]
    assert len(names) >= 100
    assert names[:3] == ["track_order", "request_refund", "escalate"]


def test_everybody_says_what_the_script_says(routing: ModuleType, tmp_path: Path) -> None:
    model = routing.scripted_model(load_base(str(routing.random_model(tmp_path / "model", routing.SMALL))))
    examples = routing.gold_rows(4)
    one = routing.scene("here", 5, model, examples)
    decoders = [GreedyDecoder(model), GreedyDecoder(model, draft_length=0)]
    decoders += [MlxLmDecoder(model.network, model.chat, prompt_cache=cached) for cached in (False, True)]
    script = model.network.script

    for decoder in decoders:
        router = Router(decoder, one.catalogue)
        for example, row in zip(examples, one.rows, strict=True):
            script.follow(row)
            assert router.route(example.request).raw == example.answer

    script.look_up(one.rows)
    router = Router(GreedyDecoder(model), one.catalogue)
    together = router.route_many([example.request for example in examples])
    assert [decision.raw for decision in together] == [example.answer for example in examples]
    assert {decision.timings.batch_size for decision in together} == {len(examples)}


def test_without_a_script_the_network_is_itself(routing: ModuleType, tmp_path: Path) -> None:
    model = load_base(str(routing.random_model(tmp_path / "model", routing.SMALL)))
    one = routing.scene("here", 3, model, routing.gold_rows(1))
    said = [
        Router(GreedyDecoder(network), one.catalogue, max_tokens=6).route("Hi!").raw
        for network in (model, routing.scripted_model(model))
    ]
    assert said[0] == said[1]


def test_a_random_model_gives_all_figures(routing: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing, "fresh_scripted", lambda *_: {})
    monkeypatch.setattr(routing.llama_race, "NEEDED", ("no_such_package",))
    found = routing.random_section(routing.SMALL, 2, 4, 1e9, quiet, large=True)

    assert set(found) >= FIGURES
    assert found["differences_from_plain_greedy"] == 0
    assert found["vs_llama_cpp"] is None
    assert 1 <= found["passes_per_call_median"] <= 12
    assert found["scaling"]["tools"] == [3, 5]
    assert found["scaling"]["p50_ratio"] == pytest.approx(
        found["scaling"]["over_attention_alone"] * found["scaling"]["attention_alone_ratio"]
    )
    assert abs(found["scenes"][routing.LONG]["prefix_tokens"] - 800) < 40
    assert found["batch"]["differences_from_one_by_one"] == 0
    assert found["batch"]["requests"] == 4
    text = routing.render({"machine": {}, "memory_bandwidth_gb_per_s": 1.0, "qwen3_small": found})
    assert "passes_per_call_median" in text and "over what attention alone costs" in text


def test_llama_cpp_is_left_out_where_it_is_not_installed(
    routing: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(routing.llama_race, "NEEDED", ("no_such_package",))
    model = load_base(str(routing.random_model(tmp_path / "model", routing.SMALL)))
    said: list[str] = []
    with routing.llama_race.peer_of(model, said.append) as peer:
        assert peer is None
    assert "not measured" in said[0]


def test_llama_cpp_computes_the_same_and_says_what_the_script_says(routing: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    pytest.importorskip("gguf")
    model = load_base(str(routing.random_model(tmp_path / "model", routing.SMALL)))
    examples = routing.gold_rows(4)
    one = routing.scene("here", 5, model, examples)
    requests = [example.request for example in examples]
    plain = Router(GreedyDecoder(model, draft_length=0), one.catalogue, max_tokens=12)

    with routing.llama_race.peer_of(model, quiet, tries=1) as peer:
        for lane in peer.lanes("script", Router(plain.decoder, one.catalogue), requests, rows=one.rows):
            assert [lane.call(number).output for number in range(4)] == [example.answer for example in examples]
        held, free, _ = peer.lanes("own", plain, requests)
        assert [free.call(number).output for number in range(4)] == [plain.route(request).raw for request in requests]
        assert all(held.call(number).output.startswith('{"tool":"') for number in range(4))
        assert peer.figures["largest_logit_difference"] < 1e-4


def test_adapters_are_measured_with_their_own_answers(routing: ModuleType, adapter: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", known_rows())
    found = routing.measure_own([(str(adapter), str(rows))], 4, 6, 8, 1e9, quiet)["adapter"]
    assert found["differences_from_plain_greedy"] == found["differences_from_mlx_lm_generate"] == 0
    assert found["batch"]["differences_from_one_by_one"] == 0
    assert len(found["passes"]) == 4


def test_scripted_answers_in_a_fresh_process(routing: ModuleType, tmp_path: Path) -> None:
    base = routing.random_model(tmp_path / "model", routing.SMALL)
    model = load_base(str(base))
    examples = routing.gold_rows(2)
    one = routing.scene("here", 3, model, examples)
    given: dict[str, Any] = {
        "base": str(base),
        "tools": 3,
        "requests": [example.request for example in examples],
        "rows": [[row.tokens, row.prompt_length] for row in one.rows],
        "draft_length": 16,
        "mlx_lm": False,
        "cache_dir": None,
    }
    found = routing.run_fresh([str(ROOT / "benchmarks" / "routing.py"), "--fresh-process"], given)
    assert 0 < found.first_request_ms < found.cold_start_ms


@pytest.mark.slow
def test_the_quick_run(adapter: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", known_rows())
    program = [str(ROOT / "benchmarks" / "routing.py"), "--quick", "--requests", "2", "--json"]
    done = subprocess.run(
        [sys.executable, *program, "--own", str(adapter), str(rows)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for name in ("tiny", "qwen3_small"):
        assert set(found[name]) >= FIGURES
        assert found[name]["differences_from_plain_greedy"] == 0
