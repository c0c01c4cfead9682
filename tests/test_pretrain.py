"""The program that makes the embedded base: its data, its packing, and a few steps of training."""

import gzip
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import tiny_base

from mlx_router.calls import NoTool, ToolCall
from mlx_router.catalogue import Catalogue
from mlx_router.parsing import parse
from mlx_router.prompts import assistant_text, system_message
from mlx_router.tiny.pretrain import lexicon
from mlx_router.tiny.pretrain.generator import Episode, SyntheticEpisodes
from mlx_router.tiny.pretrain.mixture import load_mixture
from mlx_router.tiny.pretrain.phrases import Voice
from mlx_router.tiny.pretrain.requests import call_request, idle_request, impossible_request, partial_request
from mlx_router.tiny.pretrain.sources import LEFT_OUT, RealEpisodes, command_of, load_set, load_sets
from mlx_router.tiny.pretrain.tools import Naming, make_tool
from mlx_router.tiny.pretrain.values import Words, number_words

BASE = Path(lexicon.__file__).resolve().parents[1]
REASONS = {
    "chitchat",
    "out_of_scope",
    "no_matching_tool",
    "no_action_requested",
    "missing_information",
    "invalid_parameter",
}


def synthetic(seed: int, episodes: int = 60, *, held_things: bool = False, held_phrases: bool = False) -> list[Episode]:
    source = SyntheticEpisodes(random.Random(seed), Words(), held_things, held_phrases)
    return [source.episode(8) for _ in range(episodes)]


def every_turn(episodes: list[Episode]) -> list[tuple[Catalogue, str, Any]]:
    return [(episode.catalogue, turn.request, turn.target) for episode in episodes for turn in episode.turns]


@pytest.mark.parametrize("held", [False, True])
def test_every_target_parses_against_its_catalogue(held: bool) -> None:
    for catalogue, request, target in every_turn(synthetic(1, held_things=held, held_phrases=held)):
        assert parse(assistant_text(target, catalogue), catalogue) == target, request


@pytest.mark.parametrize("verb", lexicon.VERBS, ids=lambda verb: verb.lemma)
def test_every_sort_of_request_can_be_written_for_every_verb(verb: lexicon.Verb) -> None:
    rng = random.Random(verb.lemma)
    for held in (False, True):
        voice = Voice(rng, Words(), held)
        for _ in range(30):
            made = make_tool(rng, verb, "light", Naming.draw(rng), Words())
            texts = [call_request(voice, made, lone=True)[0], idle_request(voice, made)]
            texts += [found[0] for found in (partial_request(voice, made), impossible_request(voice, made)) if found]
            assert all(text.strip() and not re.search(r"[{}\x02\x03]|SWITCH", text) for text in texts), texts


def test_free_text_values_stand_in_the_request_letter_for_letter() -> None:
    seen = 0
    for catalogue, request, target in every_turn(synthetic(2)):
        if isinstance(target, NoTool):
            continue
        for name, value in target.arguments.items():
            schema = catalogue.get(target.tool).properties[name]  # type: ignore[union-attr]
            texts = [] if "enum" in schema else value if isinstance(value, list) else [value]
            for text in texts:
                if isinstance(text, str):
                    seen += 1
                    assert re.search(rf"(?<!\w){re.escape(text)}(?!\w)", request), (request, name, text)
    assert seen > 200


def test_number_words_become_numbers() -> None:
    assert [number_words(number) for number in (0, 13, 20, 42, 100)] == [
        "zero",
        "thirteen",
        "twenty",
        "forty two",
        "a hundred",
    ]
    spelt = re.compile(r"\b(two|three|four|five|six|seven|eight|nine|ten)\b", re.IGNORECASE)
    numbers = [
        target.arguments
        for _, request, target in every_turn(synthetic(3, 150))
        if isinstance(target, ToolCall) and spelt.search(request)
    ]
    assert any(isinstance(value, int) for arguments in numbers for value in arguments.values())


def test_the_same_seed_gives_the_same_episodes() -> None:
    assert every_turn(synthetic(4, 10)) == every_turn(synthetic(4, 10))
    assert every_turn(synthetic(4, 10)) != every_turn(synthetic(5, 10))


def test_no_tool_is_about_a_sixth_and_its_reasons_are_the_projects_codes() -> None:
    targets = [target for _, _, target in every_turn(synthetic(6, 300))]
    refusals = [target for target in targets if isinstance(target, NoTool)]
    assert 0.12 < len(refusals) / len(targets) < 0.24
    assert {target.code for target in refusals} == REASONS


def test_missing_information_names_required_parameters_that_the_call_would_lack() -> None:
    seen = 0
    for catalogue, _, target in every_turn(synthetic(7, 200)):
        if isinstance(target, NoTool) and target.code == "missing_information":
            seen += 1
            assert target.missing
            assert any(set(target.missing) <= set(tool.required) for tool in catalogue)
    assert seen > 20


def test_held_out_things_and_phrasings_never_reach_training() -> None:
    held_things = re.compile("|".join(rf"\b{thing}s?\b" for thing in lexicon.HELD_THINGS))
    for catalogue, request, _ in every_turn(synthetic(8, 100)):
        assert not held_things.search(request), request
        assert not any(request.startswith(opening) for opening in lexicon.HELD_OPENINGS), request
        assert not any(held_things.search(tool.name) for tool in catalogue)


def test_the_tools_of_the_briefs_example_are_left_out() -> None:
    for catalogue, _, _ in every_turn(synthetic(9, 200)):
        assert not any(LEFT_OUT.search(tool.name) for tool in catalogue)


def write_set(folder: Path, name: str, tools: list[dict[str, Any]], rows: list[dict[str, Any]]) -> None:
    (folder / name).mkdir(parents=True)
    with gzip.open(folder / name / "catalogues.json.gz", "wt", encoding="utf-8") as file:
        json.dump({"catalogue.json": tools}, file)
    with gzip.open(folder / name / "train.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps({"catalogue": "catalogue.json", **row}) + "\n" for row in rows)


def tool(name: str, *parameters: str) -> dict[str, Any]:
    properties = {parameter: {"type": "string"} for parameter in parameters}
    return {"name": name, "description": f"{name}.", "parameters": {"type": "object", "properties": properties}}


def call(request: str, name: str, **arguments: str) -> dict[str, Any]:
    return {"request": request, "target": {"tool": name, "arguments": arguments}}


@pytest.fixture
def real_sets(tmp_path: Path) -> Path:
    tools = [tool("PlayMusic", "artist"), tool("GetWeather", "city"), tool("RateBook", "title", "stars")]
    rows = [call(f"Play songs by Band{n}", "PlayMusic", artist=f"Band{n}") for n in range(20)]
    rows += [call(f"weather in Town{n}", "GetWeather", city=f"Town{n}") for n in range(20)]
    rows += [call(f"play some music, take {n}", "PlayMusic") for n in range(20)]
    rows += [call("play something by abba", "PlayMusic", artist="ABBA")]
    rows += [call("play my favourite", "PlayMusic", artist="The Beatles")]
    write_set(tmp_path, "hwu64", tools, rows)
    return tmp_path


def test_values_are_copied_as_the_request_writes_them_and_inferred_ones_left_out(real_sets: Path) -> None:
    rows = load_set(real_sets / "hwu64").rows["catalogue.json"]
    assert len(rows) == 61
    assert [row.arguments for row in rows if row.request == "play something by abba"] == [{"artist": "abba"}]


def test_real_episodes_fit_their_cut_and_renamed_catalogues(real_sets: Path) -> None:
    source = RealEpisodes(random.Random(11), load_sets(real_sets), Words())
    codes = set()
    for _ in range(150):
        episode = source.episode(8)
        for turn in episode.turns:
            assert parse(assistant_text(turn.target, episode.catalogue), episode.catalogue) == turn.target, turn
            codes.add(turn.target.code if isinstance(turn.target, NoTool) else "call")
    assert {"call", "no_matching_tool", "missing_information", "no_action_requested"} <= codes


def test_only_train_files_are_read(real_sets: Path) -> None:
    (real_sets / "hwu64" / "test.jsonl.gz").write_bytes(b"not even gzip")
    (real_sets / "hwu64" / "valid.jsonl.gz").write_bytes(b"not even gzip")
    assert load_sets(real_sets)


def test_commands_are_told_from_other_requests() -> None:
    assert command_of("Please play jazz.") == "play jazz"
    assert command_of("what's the weather") == ""


@pytest.mark.skipif(not (BASE / "tokenizer.json").exists(), reason="the embedded base is not there")
def test_packed_tokens_are_those_of_the_routers_chat_format() -> None:
    from transformers import AutoTokenizer

    from mlx_router.prompts import ChatFormat, conversation
    from mlx_router.tiny.pretrain.packing import Encoder

    chat = ChatFormat(AutoTokenizer.from_pretrained(str(BASE)))
    encoder = Encoder(BASE / "tokenizer.json")
    for episode in synthetic(12, 5):
        for turn in episode.turns:
            messages = conversation(system_message(episode.catalogue), turn.request)
            row = chat.row_tokens(messages, assistant_text(turn.target, episode.catalogue))
            question, answer = encoder.turn(turn, episode.catalogue)
            prompt = encoder.prefix(episode.catalogue) + question
            assert row.tokens == prompt + answer
            assert row.prompt_length == len(prompt)


@pytest.mark.skipif(not (BASE / "tokenizer.json").exists(), reason="the embedded base is not there")
def test_packed_rows_keep_their_length_and_learn_only_answers() -> None:
    from mlx_router.tiny.pretrain.packing import Encoder, Packer

    encoder = Encoder(BASE / "tokenizer.json")
    packer = Packer(encoder, load_mixture("")(13), 768, random.Random(0))
    for row in (packer.row() for _ in range(10)):
        assert len(row.tokens) <= 768
        assert len(row.tokens) == len(row.episodes) == len(row.turns) == len(row.positions) == len(row.learnt)
        assert row.requests == len({pair for pair in zip(row.episodes, row.turns, strict=True) if pair[1]})
        learnt = encoder.tokenizer.decode([t for t, yes in zip(row.tokens, row.learnt, strict=True) if yes])
        assert learnt.count('{"tool":"') >= row.requests and "Available tools" not in learnt


def test_a_few_seconds_of_training_lower_the_loss_and_a_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    from mlx_router.tiny.pretrain.train import main

    base, out = tiny_base(tmp_path / "base", monkeypatch), tmp_path / "run"
    arguments = ["--out", str(out), "--base", str(base), "--processes", "1", "--minutes"]
    main([*arguments, "0.05"])
    first = json.loads((out / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    main([*arguments, "0.15", "--workers", "1"])
    last = json.loads((out / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    assert last["step"] > first["step"] and last["tokens"] > first["tokens"]
    assert last["loss"] < first["loss"] < 8
    assert (out / "model" / "model.safetensors").exists()


def test_workers_make_the_same_batches_in_the_same_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    from mlx_router.tiny.pretrain import train
    from mlx_router.tiny.pretrain.packing import Encoder

    monkeypatch.setattr(train, "TOKENS_PER_STEP", 1024)
    monkeypatch.setattr(train, "LENGTHS", (512,))
    data = train.Data("", Encoder(tiny_base(tmp_path / "base", monkeypatch) / "tokenizer.json"), seed=3, rank=0)
    for step, batch in zip(range(5, 9), train.batches(data, 5, workers=2), strict=False):
        alone = data[step]
        assert batch.requests == alone.requests > 0
        for name in ("tokens", "before", "weight", "positions", "episodes", "turns"):
            assert torch.equal(getattr(batch, name), getattr(alone, name))
