"""Prefilled prefixes in memory and on disk: they change how long an answer takes, and never the answer."""

import copy
import logging
import os
from pathlib import Path

import pytest
from tiny_models import make_model

from mlx_router.attention import ContinuedCache
from mlx_router.calls import Generation, Message
from mlx_router.decoder import GreedyDecoder
from mlx_router.exponential import is_fast
from mlx_router.model import Model, load_base
from mlx_router.prefixes import ASIDE_SECONDS, SUFFIX, PrefixCache, PrefixFiles, run
from mlx_router.prompts import conversation

import mlx.core as mx  # isort: skip  (model has put the BLAS in place)
from mlx_lm.models.cache import trim_prompt_cache  # isort: skip

SYSTEMS = [f"You route requests number {number}. " + "Do as you are told. " * 8 for number in range(4)]


@pytest.fixture(scope="module", params=["qwen3", "gemma3_text"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_base(str(make_model(tmp_path_factory.mktemp("models") / "model", request.param)))


def messages(number: int = 0) -> tuple[Message, Message]:
    return conversation(SYSTEMS[number], "Hi!")


def decode(model: Model, files: PrefixFiles | None, number: int = 0) -> Generation:
    return GreedyDecoder(model, files=files).decode(messages(number), 6)


def files_in(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{SUFFIX}"))


def test_a_second_process_answers_from_the_file_as_the_first_did(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = PrefixFiles(tmp_path / "cache")
    first = decode(model, files)
    assert first.text == decode(model, None).text
    assert len(files_in(tmp_path / "cache")) == 1

    def refuse(*_: object) -> None:
        raise AssertionError("the prefix was run although a file holds it")

    # What has been read must not be written again either.
    monkeypatch.setattr(PrefixFiles, "write", refuse)
    again = decode(model, files)
    assert again.text == first.text
    assert again.timings is not None and again.timings.cached_tokens > 0


@pytest.mark.parametrize("damage", ["empty", "cut", "bit", "foreign", "other's"])
def test_a_damaged_or_foreign_file_is_made_again(
    model: Model, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    files = PrefixFiles(tmp_path)
    wanted = decode(model, files).text
    (path,) = files_in(tmp_path)
    whole = path.read_bytes()
    decode(model, files, 1)
    other = next(found for found in files_in(tmp_path) if found != path).read_bytes()
    flipped = bytearray(whole)
    flipped[-5] ^= 1
    contents = {"empty": b"", "cut": whole[:-9], "bit": bytes(flipped), "foreign": b"PK\x03\x04" * 99, "other's": other}
    path.write_bytes(contents[damage])
    with caplog.at_level(logging.WARNING, "mlx_router"):
        assert decode(model, files).text == wanted

    assert "damaged or foreign" in caplog.text
    assert path.read_bytes() == whole


def test_another_adapter_has_another_file(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = PrefixFiles(tmp_path)
    decode(model, files)
    monkeypatch.setitem(model.identity, "adapter", "another")
    decode(model, files)

    assert len(files_in(tmp_path)) == 2


def test_the_least_recently_used_files_go_above_the_cap(model: Model, tmp_path: Path) -> None:
    decode(model, PrefixFiles(tmp_path))
    size = files_in(tmp_path)[0].stat().st_size
    files = PrefixFiles(tmp_path, max_bytes=int(2.5 * size))
    decode(model, files, 1)
    first, second = (files.path(model, messages(n)[0], model.chat.shared_prefix(messages(n)[0])) for n in (0, 1))
    os.utime(first, (1, 1))
    os.utime(second, (2, 2))
    decode(model, files, 0)
    decode(model, files, 2)

    assert first.is_file() and not second.is_file()
    assert len(files_in(tmp_path)) == 2


def test_a_prefix_larger_than_the_cap_is_not_written(
    model: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "mlx_router"):
        decode(model, PrefixFiles(tmp_path, max_bytes=100))

    assert files_in(tmp_path) == []
    assert "is not kept" in caplog.text


def test_what_a_killed_process_left_aside_is_removed(model: Model, tmp_path: Path) -> None:
    old, new = tmp_path / "old.part", tmp_path / "new.part"
    old.write_bytes(b"half")
    new.write_bytes(b"half")
    os.utime(old, (1, new.stat().st_mtime - 2 * ASIDE_SECONDS))
    decode(model, PrefixFiles(tmp_path))

    assert (old.exists(), new.exists()) == (False, True)


def test_a_folder_that_can_not_be_written_is_reported_and_routing_goes_on(
    model: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    with caplog.at_level(logging.WARNING, "mlx_router"):
        found = decode(model, PrefixFiles(tmp_path / "file"))

    assert found.text == decode(model, None).text
    assert "can't be" in caplog.text


def test_memory_keeps_the_last_used_within_number_and_bytes(model: Model) -> None:
    cache = PrefixCache(model, kept=2)
    first = cache.get(messages(0))
    cache.get(messages(1))
    assert cache.get(messages(0)) is first
    cache.get(messages(2))
    assert cache.get(messages(0)) is first and len(cache) == 2

    small = PrefixCache(model, max_bytes=first.nbytes // 2)
    small.get(messages(0))
    small.get(messages(1))
    assert len(small) == 1


@pytest.mark.skipif(not is_fast(), reason="elsewhere caches are copied")
@pytest.mark.parametrize("family", ["qwen3", "llama", "smollm3"])
def test_a_text_goes_on_from_the_prefix_as_from_a_copy_of_its_caches(family: str, tmp_path: Path) -> None:
    model = load_base(str(make_model(tmp_path / "model", family)))
    prefix = PrefixCache(model).get(messages())
    ours, copied = prefix.continued(), copy.deepcopy(prefix.cache)
    assert all(type(layer) is ContinuedCache for layer in ours)
    before = [(mx.array(layer.keys), mx.array(layer.values)) for layer in prefix.cache]
    mx.eval(before)
    # Many tokens, wrong ones that are taken back, a few, and one.
    for tokens, back in ((40, 0), (9, 7), (5, 1), (1, 0), (300, 0)):
        passes = [run(model.network, list(range(3, 3 + tokens)), cache, rows=tokens) for cache in (ours, copied)]
        assert mx.allclose(*passes, rtol=1e-4, atol=1e-5)
        for cache in (ours, copied):
            assert trim_prompt_cache(cache, back) == back
        assert [layer.offset for layer in ours] == [layer.offset for layer in copied]
    for layer, (keys, values) in zip(prefix.cache, before, strict=True):
        assert mx.array_equal(layer.keys, keys) and mx.array_equal(layer.values, values)


@pytest.mark.skipif(not is_fast(), reason="elsewhere caches are copied")
def test_a_text_under_a_mask_of_its_own_sees_prefix_and_own_tokens(tmp_path: Path) -> None:
    model = load_base(str(make_model(tmp_path / "model", "qwen3")))
    prefix = PrefixCache(model).get(messages())
    cache = prefix.continued()[0]
    keys, values = (mx.random.normal((1, prefix.cache[0].keys.shape[1], 3, prefix.cache[0].keys.shape[3])),) * 2
    whole, _ = cache.update_and_fetch(keys, values)
    assert whole.shape[2] == len(prefix.tokens) + 3
    mask = cache.make_mask(2, window_size=4, return_array=True)
    assert cache.attend(keys, whole, whole, mask) is None


def test_prefixes_of_other_kinds_of_caches_are_copied(tmp_path: Path) -> None:
    model = load_base(str(make_model(tmp_path / "model", "gemma3_text")))
    prefix = PrefixCache(model).get(messages())
    assert prefix.parts is None
    assert [type(layer) for layer in prefix.continued()] == [type(layer) for layer in prefix.cache]
    assert not any(one is other for one, other in zip(prefix.continued(), prefix.cache, strict=True))
