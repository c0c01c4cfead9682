"""What a sentence encoder teaches the base: words' and texts' vectors, and new words. Needs `mlx-router[pretrain]`."""

import json
import random
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from conftest import tiny_base  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

from mlx_router.tiny import pretrain  # noqa: E402
from mlx_router.tiny.pretrain import distil, growth, model, semantics, store, train  # noqa: E402
from mlx_router.tiny.pretrain.corpus import Text, corpus  # noqa: E402
from mlx_router.tiny.pretrain.packing import Encoder  # noqa: E402

BASE = Path(pretrain.__file__).resolve().parents[1]
WIDTH = 8


def vector(word: str) -> Any:
    """A vector of a word's own, always the same."""
    return np.random.default_rng(zlib.crc32(word.strip(".,?!").lower().encode())).standard_normal(WIDTH)


class WordsAlone:
    """A teacher that knows words, and of a text the mean of its words."""

    def __init__(self, folder: Path) -> None:
        pass

    def vectors(self, texts: Sequence[str]) -> tuple[list[Any], Any]:
        words = [np.stack([vector(word) for word in text.split()]) for text in texts]
        return words, np.stack([one.mean(0) for one in words])


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A base of two blocks, with its tokenizer; and a teacher that needs no files."""
    folder = tmp_path_factory.mktemp("base")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"WORD_BLOCK": 1, "TEXT_BLOCK": 2, "CHUNK": 400, "FIRST_TEXTS": 400}.items():
            patch.setattr(distil, name, value)
        for name, value in {"TOKENS_PER_STEP": 1024, "LEARNT_PER_STEP": 300, "LENGTHS": (512,)}.items():
            patch.setattr(train, name, value)
        patch.setattr(train, "WARMUP_STEPS", 1)
        patch.setattr(distil, "Teacher", WordsAlone)
        yield tiny_base(folder, patch)


def test_words_vectors_are_the_means_of_their_pieces() -> None:
    states = torch.tensor([[9.0], [1.0], [2.0], [4.0], [9.0]])
    offsets = [(0, 0), (0, 4), (4, 7), (8, 12), (0, 0)]  # special, two pieces, one piece, special
    assert distil._by_word("plumber asap tomorrow", offsets, states).tolist() == [[1.5], [4.0], [0.0]]


def test_a_lesson_points_at_the_last_tokens_of_words_and_texts(small: Path, tmp_path: Path) -> None:
    encoder = Encoder(small / "tokenizer.json")
    texts = [Text("wake me at 7:30am, zorgblatt!"), Text("Set an alarm.", "set_alarm"), Text("lights off")]
    lessons = distil.Lessons(tmp_path / "texts", texts, encoder)
    lessons.prepare(Path("unused"))
    (lesson,) = lessons.batch(random.Random(0), 12)
    flat = lesson.tokens.flatten().tolist()
    length = lesson.tokens.shape[1]
    ends = lesson.words.tolist()
    said = sum(len(text.text.split()) for text in texts)
    assert len(ends) == len(lesson.word_targets) == said
    for row, end in enumerate(lesson.ends.tolist()):
        assert flat[end] == encoder.stop[0]
        own = [at for at in ends if row * length <= at < (row + 1) * length]
        # What lies between two words' last tokens is the second word.
        words = encoder.tokenizer.decode(flat[own[0] + 1 : end]).split()
        assert len(words) == len(own) - 1
        assert end == own[-1] + 1
    word_mean, word_scale, _, _ = lessons.statistics
    told = lesson.word_targets.numpy() * word_scale + word_mean
    for word in ("7:30am,", "zorgblatt!", "alarm.", "lights"):
        assert np.abs(told - vector(word)).max(1).min() < 0.01, word


def test_what_texts_mean_is_learnt_by_the_base_and_not_by_the_heads_alone(small: Path, tmp_path: Path) -> None:
    shape = model.Shape.read(small)
    weights = {name: weight.requires_grad_() for name, weight in model.random_weights(shape, 0).items()}
    made = model.Model(shape, weights)
    lessons = distil.Lessons(tmp_path / "texts", corpus("", 0)[:800], Encoder(small / "tokenizer.json"))
    lessons.prepare(Path("unused"))
    meaning = distil.Meaning(lessons, Path("unused"), weight=1.0, texts=96)
    heads = meaning.first_heads(made)
    weights.update({name: head.requires_grad_() for name, head in heads.items()})
    optimizer = torch.optim.Adam([weight for name, weight in weights.items() if name not in heads], lr=3e-3)
    losses = []
    for step in range(60):
        optimizer.zero_grad()
        losses.append(meaning.backward(made, random.Random(step)))
        optimizer.step()
    assert 1 < sum(losses[:5]) / 5 < 2.3
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5]), losses


def test_a_run_with_a_second_teacher_learns_both_and_writes_neither_heads_nor_parts(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "corpus", lambda data, seed: corpus(data, seed)[:1000])
    monkeypatch.setattr(train, "word_vectors", lambda tokenizer, folder: torch.randn(2048, WIDTH))
    out = tmp_path / "run"
    arguments = ["--out", str(out), "--base", str(small), "--processes", "1", "--distil", "0.5"]
    train.main([*arguments, "--semantics", "unused", "--minutes", "0.05"])
    train.main([*arguments, "--semantics", "unused", "--minutes", "0.3"])
    log = [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert log[-1]["step"] > log[0]["step"]
    assert log[-1]["loss"] < log[0]["loss"] and log[-1]["meaning"] < 3
    assert set(model.load_weights(out / "model")) == set(model.tensor_sizes(model.Shape.read(small)))


def test_it_says_what_a_second_teacher_needs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train.read_arguments(["--out", "x", "--minutes", "1", "--distil", "0.5"])
    assert "--semantics" in capsys.readouterr().err


def test_a_grown_base_keeps_its_tokens_and_vectors_and_takes_new_words_whole(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = model.Shape.read(small)
    made = model.Model(shape, model.random_weights(shape, 0))
    model.export(made, small, small, torch.float32)

    def vectors(grown: Tokenizer, encoder: Path) -> Any:
        known = semantics.whole_words(grown, {token.removeprefix("Ġ").lower() for token in grown.get_vocab()})
        rows = torch.zeros(grown.get_vocab_size(), WIDTH)
        for at, word in known.items():
            rows[at] = torch.from_numpy(vector(word)).float()
        return rows

    monkeypatch.setattr(growth, "word_vectors", vectors)
    monkeypatch.setattr(growth, "corpus", lambda data, seed: [Text("Fix zorgblatt now", "zorgblatt")] * 10)
    words = tmp_path / "words.txt"
    words.write_text("plumber\nzorgblatt\nbabysitter\nfix\n", encoding="utf-8")
    out = tmp_path / "grown"
    growth.main(["--base", str(small), "--words", str(words), "--semantics", "x", "--size", "2064", "--out", str(out)])

    before, after = (Tokenizer.from_file(str(folder / "tokenizer.json")) for folder in (small, out))
    assert {token: after.token_to_id(token) for token in before.get_vocab()} == before.get_vocab()
    assert len(before.encode("the plumber").ids) > len(after.encode("the plumber").ids)
    assert after.encode("zorgblatt").tokens == ["zorgblatt"]
    grown = model.load_weights(out)[model.EMBEDDING]
    assert grown.shape == (after.get_vocab_size(), shape.hidden_size)
    assert torch.equal(grown[:2048], made.weights[model.EMBEDDING])
    old = torch.tensor([bool(vector.any()) for vector in vectors(before, Path())])
    longest, usual = grown[2048:].norm(dim=-1).max(), grown[:2048][old].norm(dim=-1).median()
    assert usual * 0.9 < grown[2048:].norm(dim=-1).median() < longest < usual * 3
    assert len({tuple(row.tolist()) for row in grown[2048:]}) == after.get_vocab_size() - 2048
    assert json.loads((out / "config.json").read_text(encoding="utf-8"))["vocab_size"] == after.get_vocab_size()


def test_a_base_stored_in_eight_bits_is_read_for_more_training(tmp_path: Path) -> None:
    store.store(BASE, tmp_path / "stored")
    first, read = model.load_weights(BASE), model.load_weights(tmp_path / "stored")
    assert set(first) == set(read)
    for name, weight in first.items():
        assert torch.allclose(read[name], weight, atol=float(weight.abs().max()) / 100), name
    model.export(model.Model(model.Shape.read(BASE), read), tmp_path / "stored", tmp_path / "floats")
    config = json.loads((tmp_path / "floats" / "config.json").read_text(encoding="utf-8"))
    assert config == json.loads((BASE / "config.json").read_text(encoding="utf-8")) | {"torch_dtype": "float16"}
