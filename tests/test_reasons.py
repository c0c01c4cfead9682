"""A catalogue that lists its reasons: read, shown, hashed, checked; and one without, which stays as it was."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import KNOWN, ScriptedDecoder, known_rows, write_rows

from mlx_router import templates
from mlx_router.calls import NoTool
from mlx_router.catalogue import Catalogue, Tool, union
from mlx_router.checks import check
from mlx_router.data import read
from mlx_router.errors import CatalogueError
from mlx_router.harder import harder
from mlx_router.interop import catalogue_from_json, inspect_json
from mlx_router.manifest import Base, Manifest
from mlx_router.parsing import parse
from mlx_router.prompts import system_message
from mlx_router.router import Router
from mlx_router.signature import parse_signatures
from mlx_router.splits import Source

REASONS = ("chitchat", 'no "such" tool|}', "missing_information: ...")


@pytest.fixture
def listing(catalogue: Catalogue) -> Catalogue:
    """The support catalogue with a list of reasons."""
    return replace(catalogue, reasons=REASONS)


def test_without_a_list_a_catalogue_is_what_it_was(catalogue: Catalogue) -> None:
    assert list(catalogue.to_json()) == ["instructions", "tools"]
    seen = {"instructions": catalogue.instructions, "tools": [tool.to_json() for tool in catalogue]}
    text = json.dumps(seen, ensure_ascii=False, separators=(",", ":"))
    assert catalogue.hash == hashlib.sha256(text.encode()).hexdigest()
    assert system_message(catalogue).endswith('If no tool fits, respond with {"tool":"no_tool","reason":"..."}.')
    assert replace(catalogue, reasons=()) == catalogue
    assert catalogue.lists("anything")


def test_the_model_is_shown_the_reasons(catalogue: Catalogue, listing: Catalogue) -> None:
    shown = r'{"tool":"no_tool","reason":"chitchat"|"no \"such\" tool|}"|"missing_information: ..."}.'
    for style in ("signature", "json_schema"):
        plain, listed = (system_message(one, style) for one in (catalogue, listing))  # type: ignore[arg-type]
        assert listed == plain.replace('{"tool":"no_tool","reason":"..."}.', shown)


def test_a_list_is_read_back_and_is_part_of_the_hash(catalogue: Catalogue, listing: Catalogue) -> None:
    assert catalogue_from_json(json.loads(json.dumps(listing.to_json()))) == listing
    assert len({catalogue.hash, listing.hash, replace(listing, reasons=REASONS[:2]).hash}) == 3
    assert replace(listing, reasons=REASONS[::-1]).hash != listing.hash
    for one in (catalogue, listing, replace(catalogue, reasons=("none",))):
        again = parse_signatures(system_message(one))
        assert again is not None and again.reasons == one.reasons


@pytest.mark.parametrize(
    "tail",
    [
        "",
        'If no tool fits, respond with {"tool":"no_tool", "reason":"..."}.',
        'If no tool fits, respond with {"tool":"no_tool","reason":"..."}.',
        'If no tool fits, respond with {"tool":"no_tool","reason":a short text}.',
        'If no tool fits, respond with {"tool":"no_tool","reason":"a"|5}.',
        'If no tool fits, respond with {"tool":"no_tool","reason":"a"',
    ],
)
def test_other_texts_list_no_reasons(tail: str) -> None:
    found = parse_signatures(f"Tools:\n- ping(): see whether anyone is there.\n{tail}")
    assert found is not None and found.reasons == ()


def test_an_openai_body_may_list_reasons() -> None:
    tool = {"type": "function", "function": {"name": "ping", "description": "see whether anyone is there."}}
    found = catalogue_from_json({"tools": [tool], "reasons": ["none"]})
    assert (found.reasons, [tool.name for tool in found]) == (("none",), ["ping"])


@pytest.mark.parametrize(
    ("reasons", "words"),
    [
        ("chitchat", "must be a list of texts"),
        ({"a": 1}, "must be a list of texts"),
        ([5], "must be texts, not 5"),
        ([" "], "must be texts, not ' '"),
        (["..."], "must be texts, not '...'"),
        (["a", "b", "a"], "'a' stands twice"),
    ],
)
def test_lists_that_can_not_be_used(reasons: Any, words: str, catalogue: Catalogue) -> None:
    value = {**catalogue.to_json(), "reasons": reasons}
    with pytest.raises(CatalogueError, match=words):
        Catalogue.from_json(value)
    found, problems = inspect_json(value)
    assert found is None and any(words in str(problem) for problem in problems)


def test_any_reason_remains_valid(listing: Catalogue) -> None:
    """A refusal must not fail for its words."""
    assert parse('{"tool":"no_tool","reason":"something else"}', listing) == NoTool(reason="something else")
    assert not listing.lists("something else")


def test_a_union_lists_all_reasons_or_none(catalogue: Catalogue) -> None:
    ping, pong = Catalogue((Tool("ping", "p."),), reasons=("a", "b")), Catalogue((Tool("pong", "p."),), reasons=("b",))
    assert union([ping, pong]).reasons == ("a", "b")
    assert union([ping, catalogue]).reasons == ()


def test_the_checks_know_the_reasons(tmp_path: Path, listing: Catalogue, catalogue: Catalogue) -> None:
    targets = ["chitchat", "out_of_scope", "missing_information: order_id", "missing_information"]
    rows = [{"request": f"hi {n}", "target": {"tool": "no_tool", "reason": text}} for n, text in enumerate(targets)]
    source = [Source("test", str(write_rows(tmp_path / "rows.jsonl", rows)))]

    def found(chosen: Catalogue) -> list[tuple[str, str]]:
        codes = ("unknown_reason", "unnamed_parameter")
        return [(one.code, one.message) for one in check(source, chosen).findings if one.code in codes]

    assert found(catalogue) == [("unnamed_parameter", "missing_information names no parameter")]
    assert found(listing) == [
        ("unknown_reason", "'out_of_scope' is none of the catalogue's reasons"),
        ("unknown_reason", "'missing_information' is none of the catalogue's reasons"),
        ("unnamed_parameter", "missing_information names no parameter"),
    ]
    # Whoever lists the bare code wants no names behind it.
    assert [code for code, _ in found(replace(catalogue, reasons=("missing_information",)))] == ["unknown_reason"] * 3


def test_rows_from_templates_have_listed_reasons(catalogue: Catalogue, listing: Catalogue) -> None:
    plain, nothing = templates.rows(catalogue)
    rows, said = templates.rows(listing)
    assert nothing == [] and len(said) == 1 and "reasons of no_tool rows" in said[0]
    reasons = {row.target.reason for row in rows if isinstance(row.target, NoTool)}
    assert len(reasons) > 1 and all(map(listing.lists, reasons))
    assert [row.request for row in rows] == [row.request for row in plain]


def test_harder_tests_keep_the_reasons(tmp_path: Path, listing: Catalogue) -> None:
    examples = read(write_rows(tmp_path / "rows.jsonl", known_rows()), listing)
    slices = {one.name: one.examples for one in harder(examples)}
    assert len(slices) > 4
    assert {row.catalogue.reasons for rows in slices.values() for row in rows} == {REASONS}


def test_a_manifest_keeps_the_reasons(listing: Catalogue, catalogue: Catalogue) -> None:
    base = Base(name="tiny", model_type="llama", tokenizer_hash="0", template_hash="0")
    manifest = Manifest(
        base=base, catalogue=listing.to_json(), catalogue_hash=listing.hash, max_tokens=64, dtype="float32"
    )
    again = Manifest.model_validate_json(manifest.model_dump_json()).read_catalogue()
    assert again.reasons == REASONS
    # An adapter that was trained with other reasons has not seen this catalogue.
    router = Router(ScriptedDecoder(otherwise=json.dumps(KNOWN["Hi!"])), again, manifest=manifest)
    assert router.route("Hi!").catalogue_seen is True
    assert router.route("Hi!", catalogue=catalogue).catalogue_seen is False
