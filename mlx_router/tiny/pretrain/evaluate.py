"""Report what a base does without any tuning: `python -m mlx_router.tiny.pretrain.evaluate --data DIR [--model DIR]`.

Real sets give their valid rows, never a test row; scenes and synthetic tools give what training never saw.
"""

import argparse
import gzip
import json
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...calls import DEFAULT_MAX_TOKENS, ParseFailure, Target, ToolCall
from ...catalogue import Catalogue, Tool
from ...decoder import GreedyDecoder
from ...drafts import Drafter
from ...metrics import Row, measure
from ...model import load_base
from ...parsing import parse_target
from ...prompts import conversation, system_message
from ...router import read_outcome
from .episodes import SceneEpisodes
from .generator import Episode, SyntheticEpisodes
from .nesting import with_nested_parameters
from .scenes import held_scenes, kept, load_scenes, training_scenes
from .values import Words

REAL_SETS = ("snips_mix", "sgd_first_turn", "hwu64")
# Name: are the things held out, are the phrasings.
SYNTHETIC_SETS = {"new values": (False, False), "new phrasings": (False, True), "new things": (True, False),
                  "new things and phrasings": (True, True)}  # fmt: skip
SEED = 20_261_123
TURNS = 5


@dataclass(frozen=True)
class Question:
    """One row to answer."""

    request: str
    catalogue: Catalogue
    target: Target
    alternatives: tuple[Target, ...] = ()


def questions(episodes: Sequence[Episode], count: int) -> list[Question]:
    """The episodes' turns as questions, this many at the most."""
    return [Question(turn.request, episode.catalogue, turn.target) for episode in episodes for turn in episode.turns][
        :count
    ]


def synthetic_questions(held_things: bool, held_phrases: bool, count: int) -> list[Question]:
    """Requests to synthetic tools that training has not seen."""
    source = SyntheticEpisodes(random.Random(SEED), Words(), held_things, held_phrases)
    return questions([source.episode(TURNS) for _ in range(-(-count // TURNS))], count)


def scene_questions(held: bool, count: int, tools: int = 0, *, nested: bool = False) -> list[Question]:
    """Requests of scenes that training has not seen; else unseen texts of those that it has.

    Catalogues are the scenes' own, as written; `tools` fills them up with other scenes' tools to this number, or cuts
    them to it. With `nested`, most tools of two parameters or more have some of them in an object.
    """
    names, trained = held_scenes(), training_scenes()
    if held:
        scenes = [scene for scene in load_scenes() if scene.name in names]
    else:
        scenes = [kept(scene, held=True) for scene in load_scenes() if scene.name not in names]
        scenes = [scene for scene in scenes if any(tool.calls for tool in scene.tools)]
    source = SceneEpisodes(random.Random(SEED), Words(), scenes, trained, (tools,), plain=True)
    episodes = [source.episode(TURNS) for _ in range(-(-count // TURNS))]
    if nested:
        episodes = [with_nested_parameters(random.Random(at), made, 1.0) for at, made in enumerate(episodes)]
    if tools:
        episodes = [with_tools_at_most(random.Random(at), made, tools) for at, made in enumerate(episodes)]
    return questions(episodes, count)


def with_tools_at_most(rng: random.Random, episode: Episode, count: int) -> Episode:
    """The episode, its catalogue cut to this many tools, those that are called first; other calls are left out."""
    catalogue = episode.catalogue
    called = {turn.target.tool for turn in episode.turns if isinstance(turn.target, ToolCall)}
    order = sorted(rng.sample(catalogue.tools, len(catalogue)), key=lambda tool: tool.name not in called)
    kept = {tool.name for tool in order[:count]}
    tools = tuple(tool for tool in catalogue if tool.name in kept)
    turns = [turn for turn in episode.turns if not isinstance(turn.target, ToolCall) or turn.target.tool in kept]
    return replace(episode, catalogue=replace(catalogue, tools=tools), turns=tuple(turns))


def real_questions(folder: Path, count: int) -> list[Question]:
    """A sample of a set's valid rows; of SGD, calls only of tools that no train catalogue holds."""
    with gzip.open(folder / "catalogues.json.gz", "rt", encoding="utf-8") as file:
        raw = json.load(file)
    catalogues = {
        key: Catalogue(tuple(Tool(tool["name"], tool["description"], tool["parameters"]) for tool in tools))
        for key, tools in raw.items()
    }
    seen = {tool["name"] for key, tools in raw.items() if key.startswith("train") for tool in tools}
    rows = [row for row in _rows(folder / "valid.jsonl.gz") if row["target"]["tool"] not in seen]
    sample = random.Random(SEED).sample(rows, min(count, len(rows)))
    return [_question(row, catalogues[row["catalogue"]]) for row in sample]


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def _question(row: dict[str, Any], catalogue: Catalogue) -> Question:
    def target(value: Any) -> Target:
        found = parse_target(value, catalogue)
        assert not isinstance(found, ParseFailure), (row["id"], found)
        return found

    alternatives = tuple(target(other) for other in row.get("alternatives", ()))
    return Question(row["request"].strip(), catalogue, target(row["target"]), alternatives)


def answer(decoder: GreedyDecoder, questions: Sequence[Question]) -> list[tuple[Question, Row, str]]:
    """The model's greedy answers, scored; questions to one catalogue follow each other so that it is read once."""
    answered = []
    for question in sorted(questions, key=lambda question: question.catalogue.hash):
        messages = conversation(system_message(question.catalogue), question.request)
        draft = Drafter(question.catalogue, question.request).continuation
        generation = decoder.decode(messages, DEFAULT_MAX_TOKENS, draft=draft)
        outcome = read_outcome(generation, question.catalogue)
        answered.append((question, Row(question.target, outcome, question.alternatives), generation.text))
    return answered


def figures(rows: Sequence[Row]) -> dict[str, Any]:
    """What the model card reports, each rate with the number of rows it is of."""
    metrics = measure(rows)
    calls = [row for row in rows if row.wants_call]
    matched = sum(row.arguments_match for row in calls)
    exact = round(matched / len(calls), 3) if calls else None
    chosen = {
        "valid": metrics["valid_tool_call_rate"],
        "tool": metrics["tool_name_accuracy"],
        "false_calls": metrics["false_call_rate_on_no_tool"],
        "wrong_calls": metrics["wrong_call_rate"],
    }
    shown = {name: {"value": _rounded(metric.value), "n": metric.n} for name, metric in chosen.items()}
    return {**shown, "exact_calls": {"value": exact, "n": len(calls)}}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def main(arguments: Sequence[str] | None = None) -> None:
    """Evaluate as the command line says; JSON goes to stdout, wrong answers to stderr where asked for."""
    parser = argparse.ArgumentParser(prog="python -m mlx_router.tiny.pretrain.evaluate", description=__doc__)
    parser.add_argument("--model", default="tiny", help="model folder; the embedded base without it")
    parser.add_argument("--data", default="", help="folder of the real sets; without it, synthetic tools alone")
    parser.add_argument("--rows", type=int, default=300, help="rows a set at the most")
    parser.add_argument("--tools", type=int, nargs="*", default=[], help="sizes of catalogues to try besides")
    parser.add_argument("--synthetic", action="store_true", help="synthetic tools too")
    parser.add_argument("--show", type=int, default=0, help="wrong answers a set to show")
    options = parser.parse_args(arguments)
    decoder = GreedyDecoder(load_base(options.model))
    sets = {"unseen scenes": scene_questions(True, options.rows), "unseen texts": scene_questions(False, options.rows)}
    sets["unseen scenes, nested"] = scene_questions(True, options.rows, nested=True)
    sets |= {f"unseen scenes, {count} tools": scene_questions(True, options.rows, count) for count in options.tools}
    if options.synthetic:
        sets |= {name: synthetic_questions(*held, options.rows) for name, held in SYNTHETIC_SETS.items()}
    if options.data:
        sets |= {name: real_questions(Path(options.data) / name, options.rows) for name in REAL_SETS}
    report = {}
    for name, questions in sets.items():
        answered = answer(decoder, questions)
        report[name] = figures([row for _, row, _ in answered])
        print(f"{name}: {report[name]}", file=sys.stderr, flush=True)
        wrong = [(question, text) for question, row, text in answered if not row.right_or_alternative]
        for question, text in random.Random(SEED).sample(wrong, min(options.show, len(wrong))):
            print(f"{name}: {question.request!r}\n  wanted {question.target!r}\n  got    {text}", file=sys.stderr)
    json.dump(report, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
