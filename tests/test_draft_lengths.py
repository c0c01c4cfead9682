"""Remembered draft lengths: by device and shape of the model, never in the way of routing."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import KNOWN

from mlx_router.draft_lengths import key, remember, remembered
from mlx_router.model import Model, load_base
from mlx_router.router import Router


@pytest.fixture(scope="module")
def model(base: Path) -> Model:
    return load_base(str(base))


def shaped(model: Model, **shape: object) -> Model:
    return replace(model, config=model.config | shape)


def test_a_length_is_remembered_for_models_of_the_same_shape_only(model: Model, draft_lengths: Path) -> None:
    assert remembered(model) is None
    assert remember(model, 12) == draft_lengths
    remember(shaped(model, num_hidden_layers=99), 4)

    assert remembered(shaped(model, rope_theta=5.0)) == 12
    assert remembered(shaped(model, num_hidden_layers=99)) == 4
    assert remembered(replace(model, dtype="bfloat16")) is None


def test_a_later_measurement_takes_the_place_of_an_earlier_one(model: Model, draft_lengths: Path) -> None:
    remember(model, 12)
    remember(model, 0)
    assert remembered(model) == 0
    assert [path.name for path in draft_lengths.parent.iterdir()] == [draft_lengths.name]


@pytest.mark.parametrize(
    "content", ["", "{", "[16]", '{"KEY": -1}', '{"KEY": "16"}', '{"KEY": true}', '{"KEY": 1000000}']
)
def test_what_makes_no_sense_is_reported_and_passed_over(
    content: str, model: Model, draft_lengths: Path, caplog: pytest.LogCaptureFixture
) -> None:
    draft_lengths.parent.mkdir(parents=True, exist_ok=True)
    draft_lengths.write_text(content.replace('"KEY"', json.dumps(key(model))), encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        assert remembered(model) is None
    assert str(draft_lengths) in caplog.text

    remember(model, 6)
    assert remembered(model) == 6


def test_a_file_that_is_no_text_is_passed_over(model: Model, draft_lengths: Path) -> None:
    draft_lengths.parent.mkdir(parents=True, exist_ok=True)
    draft_lengths.write_bytes(b"\xff\xfe\x00")
    assert remembered(model) is None


def test_a_router_takes_the_remembered_length_and_answers_the_same(adapter: Path) -> None:
    before = Router.load(adapter)
    remember(before.decoder.model, 2)
    after = Router.load(adapter)

    assert (before.decoder.draft_length != 2, after.decoder.draft_length) == (True, 2)
    passes = []
    for request in KNOWN:
        one, other = before.route(request), after.route(request)
        assert one.raw == other.raw
        passes.append(other.timings.forward_passes - one.timings.forward_passes)
    assert sum(passes) > 0
