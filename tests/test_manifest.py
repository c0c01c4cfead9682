"""`router.json`: what an adapter folder says of itself, and which folders are refused."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.numpy
from conftest import KNOWN, Run

from mlx_router.catalogue import Catalogue
from mlx_router.errors import ModelError
from mlx_router.manifest import FILE, Base, Manifest, read_manifest, write_manifest
from mlx_router.records import packed, recorded_requests, request_key
from mlx_router.router import Router


@pytest.fixture
def folder(adapter: Path, tmp_path: Path) -> Path:
    """A copy of the trained adapter, to be spoilt."""
    return shutil.copytree(adapter, tmp_path / "adapter")


def change(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads((folder / FILE).read_text(encoding="utf-8"))
    edit(value)
    (folder / FILE).write_text(json.dumps(value), encoding="utf-8")


def refusal(folder: Path) -> ModelError:
    with pytest.raises(ModelError) as caught:
        Router.load(folder)
    return caught.value


def manifest_of(catalogue: Catalogue, **fields: Any) -> Manifest:
    base = Base(name="tiny", model_type="qwen3", tokenizer_hash="a", template_hash="b")
    described = {"catalogue": catalogue.to_json(), "catalogue_hash": catalogue.hash}
    return Manifest(base=base, **described, max_tokens=64, dtype="float32", **fields)


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path, catalogue: Catalogue) -> None:
    fields = {"prompt_style": "json_schema", "system": "Schöne Grüße 🙂", "metrics": {"valid_loss": None}}
    manifest = manifest_of(catalogue, **fields)
    write_manifest(tmp_path, manifest)

    assert read_manifest(tmp_path) == manifest
    assert read_manifest(tmp_path).read_catalogue() == catalogue
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_the_keys_of_many_rows_take_little_room(tmp_path: Path, catalogue: Catalogue) -> None:
    keys = {request_key(f"request {number}") for number in range(20_000)}
    data = {"train": {"requests": {"cafe": packed([*keys, *keys])}}}
    manifest = manifest_of(catalogue, data=data)
    write_manifest(tmp_path, manifest)

    assert read_manifest(tmp_path) == manifest
    assert '"format": 1,\n' in (tmp_path / FILE).read_text(encoding="utf-8")
    assert (tmp_path / FILE).stat().st_size < 9 * len(keys)
    assert recorded_requests(read_manifest(tmp_path).data, "train") == {"cafe": keys}


def test_keys_of_older_manifests_are_read() -> None:
    digest = hashlib.sha256(b"where is my order").hexdigest()
    data = {"train": {"requests": {"cafe": [digest[:16]]}}, "valid": {"rows": 3}}
    assert recorded_requests(data, "train") == {"cafe": {request_key("Where is my order?")}}
    assert recorded_requests(data, "valid") is None
    assert recorded_requests(data, "calibration") is None


@pytest.mark.parametrize("keys", ["AAAA", "no base64!", 3, None, [1]])
def test_keys_that_are_none_are_refused(keys: Any) -> None:
    with pytest.raises(ModelError, match="the manifest's keys of its train requests can't be read"):
        recorded_requests({"train": {"requests": {"cafe": keys}}}, "train")


def test_a_trained_folder_tells_where_it_came_from(adapter: Path, base: Path, catalogue: Catalogue) -> None:
    found = json.loads((adapter / FILE).read_text(encoding="utf-8"))

    assert (found["format"], found["kind"]) == (1, "adapter")
    assert found["base"]["name"] == str(base)
    assert found["base"]["model_type"] == "qwen3"
    assert all(len(found["base"][name]) == 64 for name in ("weights_hash", "tokenizer_hash", "template_hash"))
    assert (found["catalogue"], found["catalogue_hash"]) == (catalogue.to_json(), catalogue.hash)
    assert (found["prompt_style"], found["max_tokens"], found["dtype"]) == ("signature", 80, "float32")
    assert (found["config"]["learning_rate"], found["config"]["rank"]) == (1e-2, 16)
    assert (found["data"]["valid"]["rows"], found["data"]["valid"]["no_tool"]) == (5, 2)
    assert {"python", "mlx", "mlx-lm"} <= found["versions"].keys()
    assert 0 < found["metrics"]["valid_loss"] < 1


def test_no_request_stands_in_the_folder(adapter: Path) -> None:
    """Training data may be what customers wrote; adapters are passed on."""
    for path in adapter.rglob("*.json"):
        text = path.read_text(encoding="utf-8")
        assert not any(request in text or json.dumps(request)[1:-1] in text for request in KNOWN)


def test_no_folder(tmp_path: Path) -> None:
    error = refusal(tmp_path / "nowhere")
    assert (error.message, error.hint) == (
        f"there is no folder {tmp_path / 'nowhere'}",
        "train one with: mlx-router train --config …",
    )


def test_a_folder_that_a_run_did_not_finish(folder: Path) -> None:
    (folder / FILE).unlink()
    error = refusal(folder)
    assert error.message == f"{folder} has no {FILE}: it is no finished adapter"
    assert error.hint is not None and "mlx-router train" in error.hint


def test_a_changed_catalogue_is_refused(folder: Path) -> None:
    change(folder, lambda value: value["catalogue"]["tools"][0].update(description="delete the order."))
    error = refusal(folder)
    assert "was changed after training" in error.message
    assert error.hint is not None and "train again" in error.hint


def test_an_unusable_catalogue_is_refused(folder: Path) -> None:
    change(folder, lambda value: value["catalogue"].update(tools=[]))
    assert "the catalogue in router.json can't be used" in refusal(folder).message


def test_a_manifest_of_another_format_is_refused(folder: Path) -> None:
    change(folder, lambda value: value.update(format=2, news="later"))
    assert refusal(folder).message == f"{folder / FILE} has format 2; this version reads 1"


def test_everything_wrong_with_a_manifest_is_named(folder: Path) -> None:
    def spoil(value: dict[str, Any]) -> None:
        value["max_token"] = value.pop("max_tokens")
        value["prompt_style"] = "poem"
        del value["base"]["name"]

    change(folder, spoil)
    assert refusal(folder).message.splitlines() == [
        f"{folder / FILE} is no manifest that this version reads:",
        "  base.name: Field required",
        "  prompt_style: Input should be 'signature' or 'json_schema'",
        "  max_tokens: Field required",
        "  max_token: Extra inputs are not permitted",
    ]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1]", b"null"])
def test_garbage_is_refused(content: bytes, folder: Path) -> None:
    (folder / FILE).write_bytes(content)
    assert str(folder / FILE) in refusal(folder).message


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("adapters.safetensors", None),
        ("adapters.safetensors", b"not weights"),
        ("adapter_config.json", None),
        ("adapter_config.json", b"{"),
        ("adapter_config.json", b"{}"),
    ],
)
def test_a_folder_without_its_weights_is_refused(name: str, content: bytes | None, folder: Path, run: Run) -> None:
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    ran = run("route", folder, "Hi!")

    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"Error: the adapter in {folder} can't be loaded: ")


def test_an_adapter_that_lacks_tensors_is_refused(folder: Path) -> None:
    """mlx-lm would leave these layers untrained and say nothing."""
    weights = safetensors.numpy.load_file(folder / "adapters.safetensors")
    first = sorted(weights)[0]
    kept = {name: value for name, value in weights.items() if name != first}
    safetensors.numpy.save_file(kept, folder / "adapters.safetensors")
    assert first in refusal(folder).message


def test_no_folder_of_the_training_machine_stands_in_the_folder(adapter: Path, tmp_path: Path) -> None:
    text = (adapter / FILE).read_text(encoding="utf-8")
    recipe = json.loads(text)["config"]
    assert recipe["train"] and "/" not in recipe["train"]
    assert "/" not in recipe["adapter"]
