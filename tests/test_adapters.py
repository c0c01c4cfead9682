"""The example adapters that come with the repository: whole, fit for the embedded base, and right on a few requests."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from mlx_router import Router
from mlx_router.catalogue import Catalogue, Tool
from mlx_router.model import TINY, load_base

ADAPTERS = sorted(path.parent for path in (ROOT / "adapters").glob("*/README.md"))
REQUESTS: dict[str, list[tuple[str, str, dict[str, Any]]]] = {
    "support": [("Where's my order ORD-1234?", "track_order", {"order_id": "ORD-1234"})],
    "desktop": [
        ("set a timer for ten minutes", "set_timer", {"amount": 10, "unit": "minutes"}),
        ("take a screenshot", "take_screenshot", {}),
    ],
}


def test_both_examples_are_there() -> None:
    assert {folder.name for folder in ADAPTERS} == set(REQUESTS)


@pytest.mark.parametrize("folder", ADAPTERS, ids=lambda folder: folder.name)
def test_an_example_belongs_to_the_embedded_base_and_is_small(folder: Path) -> None:
    manifest = json.loads((folder / "router.json").read_text(encoding="utf-8"))
    assert manifest["base"]["name"] == "tiny"
    assert manifest["base"]["weights_hash"] == load_base("tiny").base.weights_hash
    assert (folder / "adapters.safetensors").stat().st_size < 1_500_000
    # The hashes of the rows that it was trained on, by which leaks are found, take 19 bytes each.
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 2_250_000
    assert {path.name for path in folder.iterdir()} == {
        *("README.md", "adapter_config.json", "adapters.safetensors", "router.json"),
    }


@pytest.mark.parametrize("folder", ADAPTERS, ids=lambda folder: folder.name)
def test_an_example_routes(folder: Path) -> None:
    router = Router.load(folder)
    for request, tool, arguments in REQUESTS[folder.name]:
        decision = router.route(request)
        assert (decision.tool, decision.arguments) == (tool, arguments), request


def test_the_base_is_small_enough_for_the_package() -> None:
    files = [path for path in TINY.iterdir() if path.is_file() and path.suffix in (".safetensors", ".json", ".jinja")]
    assert sum(path.stat().st_size for path in files) <= 10_000_000

def test_a_catalogue_longer_than_any_that_the_base_was_trained_with_is_warned_of() -> None:
    many = Catalogue(tuple(Tool(f"tool_{n}", "Do one more of the many things. " * 8, {}) for n in range(60)))
    with pytest.warns(UserWarning, match="trained with up to 2048"):
        Router.load(ROOT / "adapters" / "support", catalogue=many)
