"""The embedded base's tokenizer, and the program that makes it."""

import json
import random
import re
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from mlx_router.tiny import pretrain
from mlx_router.tiny.pretrain import tokenizer as program
from mlx_router.tiny.pretrain.lexicon import CITIES, FIRST_NAMES, VALUE_WORDS
from mlx_router.tiny.pretrain.values import identifier, invented

BASE = Path(pretrain.__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def embedded() -> Tokenizer:
    return Tokenizer.from_file(str(BASE / "tokenizer.json"))


def values() -> list[str]:
    rng = random.Random(5)
    made = [identifier(rng, "order") for _ in range(60)] + [invented(rng) for _ in range(60)]
    made += [f"{rng.choice(FIRST_NAMES)} {invented(rng).capitalize()}" for _ in range(60)]
    return [*made, *CITIES, *VALUE_WORDS, "ORD-1234", "camelCase", "naïve café", "東京", "a_b__c", "12:30", "3.5"]


def test_a_value_has_the_same_tokens_in_the_request_and_in_the_answer(embedded: Tokenizer) -> None:
    functions = set(program.FUNCTION_WORDS.split())
    checked = 0
    for value in values():
        if re.split(r"\W", value)[0] in functions:
            continue
        asked = embedded.encode(f"please take {value}. thanks").tokens
        answered = embedded.encode(f'{{"tool":"take","arguments":{{"what":"{value}"}}}}').tokens
        own = answered[answered.index('":"') + 1 : -1]
        assert any(asked[at : at + len(own)] == own for at in range(len(asked))), (value, asked, own)
        checked += 1
    assert checked > 200


@pytest.mark.parametrize(
    "text",
    [
        '{"tool":"x","arguments":{}}',
        "- a(b: str, c?: int): d.",
        " the  the",
        "don't I'm",
        "<|im_end|>",
        "é 東京 🙂\t\n",
        "x" * 300,
    ],
)
def test_every_text_comes_back_as_it_was(text: str, embedded: Tokenizer) -> None:
    assert embedded.decode(embedded.encode(text).ids, skip_special_tokens=False) == text


def test_digits_and_underscores_stand_alone(embedded: Tokenizer) -> None:
    assert embedded.encode("order_id 2026").tokens == ["order", "_", "id", "Ġ", "2", "0", "2", "6"]


def test_the_program_makes_whole_words_of_its_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "EPISODES", 40)
    monkeypatch.setattr(program, "MERGED", 500)
    monkeypatch.setattr(program, "VOCABULARY", 700)
    (tmp_path / "words.txt").write_text("zebra\n##ing\nxylophone\n", encoding="utf-8")
    program.main(["--words", str(tmp_path / "words.txt"), "--out", str(tmp_path / "made")])
    made = Tokenizer.from_file(str(tmp_path / "made" / "tokenizer.json"))
    assert made.encode("a zebra, xylophone").tokens.count("zebra") == 1
    assert "xylophone" in made.encode("xylophone").tokens
    settings = json.loads((tmp_path / "made" / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert settings["eos_token"] == "<|im_end|>"
    assert (tmp_path / "made" / "chat_template.jinja").read_text(encoding="utf-8") == program.TEMPLATE
