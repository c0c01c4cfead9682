"""Shortlists: which tools of a large catalogue a request is shown, and what follows for routing, training and eval."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Run, ScriptedDecoder, sure, write_rows
from tiny_models import make_model, make_recipe

from mlx_router import training
from mlx_router.calls import Failure, ParseFailure
from mlx_router.catalogue import Catalogue, Tool, union
from mlx_router.certainty import Calibration, Certainty
from mlx_router.checks import Limits, check
from mlx_router.data import Example, read, with_shortlist
from mlx_router.decoder import GreedyDecoder
from mlx_router.errors import CatalogueError, ConfigError, UsageError
from mlx_router.evaluation import Recall, evaluate, read_predictions, write_predictions
from mlx_router.manifest import Base, Manifest
from mlx_router.model import Model, load_base
from mlx_router.parsing import parse_target
from mlx_router.policy import Policy
from mlx_router.prompts import system_message
from mlx_router.router import Router
from mlx_router.shortlist import Shortlist, Shortlists
from mlx_router.splits import Source

TEXT = {"type": "string"}


def tool(name: str, description: str, examples: tuple[str, ...] = (), **parameters: Any) -> Tool:
    return Tool(name, description, {"properties": parameters}, examples=examples)


TOOLS = Catalogue(
    (
        tool("trackOrder", "get the status of a parcel.", orderId=TEXT),
        tool("set_alarm", "ring at a time.", time=TEXT, repeat={"enum": ["weekdays", "never"]}),
        tool("play", "start something to listen to.", what={"type": "object", "properties": {"artist": TEXT}}),
        tool("lights", "switch lamps.", room={"type": "string", "description": "kitchen, bedroom or garden"}),
        tool("weather", "tell what it will be like outside.", ("do I need an umbrella?", "天気はどうですか")),
    )
)


def names(catalogue: Catalogue) -> list[str]:
    return [tool.name for tool in catalogue]


def best(request: str, size: int = 1, catalogue: Catalogue = TOOLS) -> list[str]:
    return names(Shortlist(catalogue, size)(request))


@pytest.mark.parametrize(
    ("request_", "name"),
    [
        ("Where is my ORDER?", "trackOrder"),  # a word of the name, in camel case
        ("any news of the parcels", "trackOrder"),  # of the description, in another form
        ("every weekday", "set_alarm"),  # a value
        ("that artist again", "play"),  # a parameter's name, two levels down
        ("it is dark in the garden", "lights"),  # a parameter's description
        ("shall I take an umbrella", "weather"),  # an example
        ("明日の天気は?", "weather"),  # no spaces between words
    ],
)
def test_any_words_of_a_tool_find_it(request_: str, name: str) -> None:
    assert best(request_) == [name]


def test_a_rare_word_counts_more_than_a_common_one() -> None:
    catalogue = Catalogue(tuple(tool(f"move_{what}", "move it.") for what in ("file", "window", "piano")))
    assert best("move the piano", 1, catalogue) == ["move_piano"]
    assert best("move move move the window", 1, catalogue) == ["move_window"]


def test_what_is_left_stands_in_the_catalogues_order() -> None:
    """So that requests about the same have the same prefix."""
    assert best("lamps in the kitchen, and the order", 2) == best("the order, and kitchen lamps", 2)
    assert best("lamps in the kitchen, and the order", 2) == ["trackOrder", "lights"]


def test_ties_go_to_the_first_in_the_catalogue() -> None:
    assert best("qwertz", 2) == ["trackOrder", "set_alarm"]
    twins = Catalogue(tuple(tool(name, "the same words.") for name in ("b1", "a1", "c1")))
    assert best("the same", 2, twins) == ["b1", "a1"]
    assert best("the same", 2, Catalogue(twins.tools[::-1])) == ["c1", "a1"]


def test_a_small_catalogue_is_shown_whole() -> None:
    assert Shortlist(TOOLS, 5)("anything") is TOOLS
    assert Shortlist(TOOLS, 9)("anything") is TOOLS


def test_instructions_and_reasons_stay() -> None:
    whole = replace(TOOLS, instructions="You route.", reasons=("none",))
    found = Shortlist(whole, 2)("order")
    assert (found.instructions, found.reasons, len(found)) == ("You route.", ("none",), 2)


def test_tools_to_be_kept_are_kept() -> None:
    lists = Shortlist(TOOLS, 2)
    assert names(lists("Where is my order?", ["weather"])) == ["trackOrder", "weather"]
    assert names(lists("Where is my order?", ["no_tool"])) == names(lists("Where is my order?"))
    assert names(lists("x", ["weather", "play", "lights"])) == ["play", "weather"]


@pytest.mark.parametrize("size", [0, -3])
def test_an_empty_shortlist_is_an_error(size: int) -> None:
    with pytest.raises(UsageError, match="is none"):
        Shortlist(TOOLS, size)


def test_shortlists_are_made_once_and_equal_catalogues_are_told_apart() -> None:
    lists = Shortlists(1)
    assert lists.of(TOOLS) is lists.of(TOOLS)
    bare = Catalogue(tuple(replace(tool, examples=()) for tool in TOOLS))
    assert bare == TOOLS
    assert names(lists.of(TOOLS)("umbrella")) == ["weather"]
    assert names(lists.of(bare)("umbrella")) == ["trackOrder"]
    many = [Catalogue((tool(f"t{n}", "d."),)) for n in range(20)]
    with ThreadPoolExecutor(4) as threads:
        assert names(next(iter(threads.map(lambda one: lists.of(one)("x"), many * 5)))) == ["t0"]
    assert lists.of(TOOLS)("umbrella") == lists.of(TOOLS)("umbrella")


# Examples in the catalogue file


def test_examples_are_kept_in_files_and_shown_to_no_model() -> None:
    again = Catalogue.from_json(json.loads(json.dumps(TOOLS.to_json())))
    assert again.tools[4].examples == TOOLS.tools[4].examples
    bare = Catalogue(tuple(replace(tool, examples=()) for tool in TOOLS))
    assert (bare.hash, system_message(bare)) == (TOOLS.hash, system_message(TOOLS))
    assert "examples" not in json.dumps(bare.to_json())
    assert union([bare, TOOLS]).tools[4].examples == TOOLS.tools[4].examples
    for wrong in ("a text", [5], [" "]):
        with pytest.raises(CatalogueError, match="examples must be a list of requests"):
            Catalogue.from_json([{"name": "a", "description": "a", "examples": wrong}])


# Routing


def answer(name: str, **arguments: Any) -> str:
    return json.dumps({"tool": name, "arguments": arguments})


def manifest_of(catalogue: Catalogue, **fields: Any) -> Manifest:
    base = Base(name="tiny", model_type="llama", tokenizer_hash="0", template_hash="0")
    values = {"max_tokens": 64, "dtype": "float32", **fields}
    return Manifest(base=base, catalogue=catalogue.to_json(), catalogue_hash=catalogue.hash, **values)


def test_the_model_is_shown_the_shortlist_and_judged_by_it() -> None:
    decoder = ScriptedDecoder({"my order": answer("trackOrder", orderId="A"), "order!": answer("weather")})
    router = Router(decoder, TOOLS, shortlist=2)
    decision = router.route("my order")

    shown = TOOLS.only(["trackOrder", "set_alarm"])
    assert decoder.systems == [system_message(shown)]
    assert (decision.tool, decision.shortlist) == ("trackOrder", ("trackOrder", "set_alarm"))
    assert decision.to_json()["shortlist"] == ["trackOrder", "set_alarm"]
    # The adapter was trained on the whole catalogue; which part of it is shown does not change that.
    assert decision.catalogue_seen is True
    # A tool that was not shown is not there.
    other = router.route("order!").outcome
    assert isinstance(other, ParseFailure) and other.reason is Failure.UNKNOWN_TOOL


def test_without_a_shortlist_nothing_changes() -> None:
    decoder = ScriptedDecoder(otherwise=answer("weather"))
    for router in (Router(decoder, TOOLS), Router(decoder, TOOLS, shortlist=0), Router(decoder, TOOLS, shortlist=5)):
        decision = router.route("my order")
        assert (decision.tool, decision.shortlist) == ("weather", None)
    assert set(decoder.systems) == {system_message(TOOLS)}


def test_another_catalogue_is_shortened_too() -> None:
    other = Catalogue((tool("ring", "call somebody."), tool("mail", "write somebody."), tool("meet", "go out.")))
    decoder = ScriptedDecoder(otherwise=answer("mail"))
    decision = Router(decoder, TOOLS, shortlist=1).route("write to Ann", catalogue=other)
    assert (decision.tool, decision.shortlist, decision.catalogue_seen) == ("mail", ("mail",), False)


def test_the_adapters_own_shortlist_is_the_default() -> None:
    manifest = manifest_of(TOOLS, config={"shortlist": 2})
    decoder = ScriptedDecoder(otherwise=answer("trackOrder"))
    sizes = {shortlist: Router(decoder, TOOLS, manifest=manifest, shortlist=shortlist) for shortlist in (None, 0, 3)}
    shown = {shortlist: router.route("my order").shortlist for shortlist, router in sizes.items()}
    assert {key: None if value is None else len(value) for key, value in shown.items()} == {None: 2, 0: None, 3: 3}


def test_a_system_text_of_its_own_can_not_be_cut() -> None:
    for options in ({"system": "You route."}, {"manifest": manifest_of(TOOLS, keep_system=True)}):
        with pytest.raises(UsageError, match="keep_system"):
            Router(ScriptedDecoder(), TOOLS, shortlist=2, **options)  # type: ignore[arg-type]


def test_a_shortlist_and_a_cache_on_disk_do_not_go_together(adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="keeping them on disk gains nothing"):
        Router.load(adapter, shortlist=2, cache_dir=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_calls_under_another_shortlist_than_calibrated_are_only_confirmed() -> None:
    weights = {"confidence": 1.0, "weakest_argument": 0.0, "ungrounded": 0.0, "overridden": 0.0}
    curve = {"kind": "platt", "slope": 1.0, "intercept": 0.0}
    found = Calibration.model_validate(
        {"weights": weights, "curve": curve, "rows": 100, "right": (1.0,), "wrong": (), "split": "a test"}
    )
    certainty = Certainty(found, Policy(wrong_call_rate=0.1))
    decoder = ScriptedDecoder({"my order": sure(answer("trackOrder"), 0.99)})
    manifest = manifest_of(TOOLS, config={"shortlist": 2})
    actions = {
        size: Router(decoder, TOOLS, manifest=manifest, certainty=certainty, shortlist=size).route("my order").action
        for size in (None, 2, 3, 0)
    }
    assert actions == {None: "act", 2: "act", 3: "confirm", 0: "confirm"}


def hundred() -> Catalogue:
    """A hundred tools, as they come from a large server."""
    things = [f"{kind}_{part}" for kind in ("invoice", "ticket", "report", "meeting") for part in "abcde"]
    pairs = [(verb, thing) for thing in things for verb in ("create", "list", "update", "archive", "share")]
    return Catalogue(tuple(tool(f"{verb}_{thing}", f"{verb} it.", id=TEXT) for verb, thing in pairs))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_base(str(make_model(tmp_path_factory.mktemp("large") / "model", max_position_embeddings=32768)))


@pytest.mark.parametrize("shortlist", [None, 3])
def test_a_hundred_tools_work_as_they_are_and_with_a_shortlist(shortlist: int | None, large: Model) -> None:
    """All the mechanics on a random model: drafts, batches, grammar; alone and together the same answers."""
    many, requests = hundred(), ["archive report c", "share the ticket b, please"]
    assert len(many) == 100
    plain, drafting = (
        Router(GreedyDecoder(large, draft_length=length), many, max_tokens=32, shortlist=shortlist)
        for length in (0, 16)
    )
    wanted = [plain.route(request).raw for request in requests]
    assert [one.raw for one in drafting.route_many(requests)] == wanted
    held = drafting.route_many(requests, mode="constrained")
    assert all(one.valid for one in held)
    if shortlist is None:
        assert [one.shortlist for one in held] == [None, None]
    else:
        assert all(one.shortlist is not None and len(one.shortlist) == 3 for one in held)
        assert "archive_report_c" in (held[0].shortlist or ())


# Training and checks


def test_rows_are_trained_on_with_their_shortlist_and_the_right_tools() -> None:
    target = parse_target({"tool": "weather", "arguments": {}}, TOOLS)
    other = parse_target({"tool": "play", "arguments": {}}, TOOLS)
    assert not isinstance(target, ParseFailure) and not isinstance(other, ParseFailure)
    example = Example("my order", target, TOOLS, alternatives=(other,))
    assert with_shortlist([example], None) == [example]
    found = with_shortlist([example], 3)[0]
    assert names(found.catalogue) == ["trackOrder", "play", "weather"]
    assert names(with_shortlist([example], 1)[0].catalogue) == ["weather"]


def test_a_run_with_a_shortlist_makes_an_adapter_that_routes_with_it(tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    config = make_recipe(tmp_path, shortlist=2, max_updates=2)
    folder = training.train(config, events.append)
    router = Router.load(folder)

    assert router.shortlist == 2
    decision = router.route("Where is KX-22?")
    assert decision.shortlist is not None and len(decision.shortlist) == 2
    assert decision.catalogue_seen is True
    start = next(event for event in events if event["event"] == "start")
    assert not start["shared_prefix"]
    assert any("with a shortlist each" in event["message"] for event in events if event["event"] == "note")
    assert Router.load(folder, shortlist=0).route("Where is KX-22?").shortlist is None


def test_a_recipe_can_not_keep_system_texts_and_cut_them(tmp_path: Path) -> None:
    config = make_recipe(tmp_path, shortlist=2, keep_system=True)
    with pytest.raises(ConfigError, match="do not go together"):
        training.train(config, lambda event: None)


def test_lengths_are_those_of_the_shortlist(tmp_path: Path, large: Model) -> None:
    many = hundred()
    rows = [{"request": "archive report c", "target": {"tool": "archive_report_c", "arguments": {}}}]
    source = [Source("train", str(write_rows(tmp_path / "rows.jsonl", rows)))]
    chat = large.chat
    whole, short = (check(source, many, Limits(chat, shortlist=size)).splits[0].longest for size in (None, 3))
    assert whole is not None and short is not None
    assert short[0].tokens < whole[0].tokens / 10


# Evaluation


def scripted_rows(tmp_path: Path) -> Path:
    rows = [
        {"request": "my order", "target": {"tool": "trackOrder", "arguments": {}}},
        {"request": "the parcel", "target": {"tool": "trackOrder", "arguments": {}}},
        {"request": "how warm", "target": {"tool": "weather", "arguments": {}}},
        {"request": "hi", "target": {"tool": "no_tool", "reason": "chitchat"}},
    ]
    return write_rows(tmp_path / "rows.jsonl", rows)


def test_recall_is_that_of_the_gold_tool_over_gold_calls(tmp_path: Path) -> None:
    examples = read(scripted_rows(tmp_path), TOOLS)
    decoder = ScriptedDecoder(otherwise=answer("trackOrder"))
    scored = evaluate(Router(decoder, TOOLS, shortlist=1), examples)
    recall = Recall.of(scored)

    assert recall is not None
    assert (recall.size, recall.recall.value, recall.recall.n) == (1, pytest.approx(2 / 3), 3)
    assert recall.recall.ci95 is not None and recall.recall.ci95[0] < 2 / 3 < recall.recall.ci95[1]
    assert recall.missed == {"weather": 1}
    assert Recall.of(evaluate(Router(decoder, TOOLS), examples)) is None


def test_predictions_are_scored_again_by_what_was_shown(tmp_path: Path) -> None:
    """A tool that was not on the list is unknown then, as it was when the router ran."""
    decoder = ScriptedDecoder({"how warm": answer("weather")}, otherwise=answer("trackOrder"))
    scored = evaluate(Router(decoder, TOOLS, shortlist=1), read(scripted_rows(tmp_path), TOOLS))
    write_predictions(scored, tmp_path / "predictions.jsonl")
    again = read_predictions(tmp_path / "predictions.jsonl")

    assert [one.outcome for one in again] == [one.outcome for one in scored]
    assert isinstance(again[2].outcome, ParseFailure)
    assert Recall.of(again) == Recall.of(scored)


def test_another_programs_shortlist_is_left_alone(tmp_path: Path) -> None:
    row = {"target": {"tool": "weather", "arguments": {}}, "output": answer("weather")}
    for other in ("yes", [], ["unheard_of"], [5]):
        path = write_rows(tmp_path / "predictions.jsonl", [{**row, "shortlist": other}])
        assert [one.shortlist for one in read_predictions(path, TOOLS)] == [None]


def test_the_command_line_takes_a_shortlist(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scripted: ScriptedDecoder
) -> None:
    scripted.otherwise = answer("trackOrder")

    def load(*_: object, shortlist: int | None = None, **__: object) -> Router:
        return Router(scripted, TOOLS, shortlist=shortlist)

    monkeypatch.setattr(Router, "load", load)
    assert run("route", "adapter", "my order", "--shortlist", "2", "--json").json["shortlist"] == [
        "trackOrder",
        "set_alarm",
    ]
    data = scripted_rows(tmp_path)
    found = run("eval", "adapter", "--data", data, "--shortlist", "1", "--json").json["shortlist"]
    assert (found["k"], found["recall"]["n"], found["missed"]) == (1, 3, {"weather": 1})
    text = run("eval", "adapter", "--data", data, "--shortlist", "1").out
    assert "shortlist of 1 tools: recall of the gold tool 0.667" in text and "not on it: weather 1" in text
    assert run("eval", "adapter", "--data", data, "--json").json["shortlist"] is None
    assert run("eval", "--predictions", data, "--shortlist", "1").code == 2
