"""Make the base's tokenizer: `python -m mlx_router.tiny.pretrain.tokenizer --data DIR --words vocab.txt --out DIR`.

Byte-level BPE over pieces cut by `PIECES`, so that a value has the same tokens in the request and in the JSON: a word
never takes the space before it, unless it is a function word, and `_` and each digit stand alone. A piece that is a
token as a whole is never merged from parts, so whole words beyond those that BPE finds can be added: the frequent ones
of the training texts, then those of a word list (one word a line, the commonest first).
"""

import argparse
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from ...prompts import assistant_text, system_message
from .mixture import load_mixture

FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
VOCABULARY = 8192
MERGED = 4608  # tokens that BPE finds; the rest of the vocabulary are whole words
SPECIAL = ("<|endoftext|>", "<|pad|>", "<|im_start|>", "<|im_end|>")
FUNCTION_WORDS = (
    "a about all am an and any are as at be but by can could do does for from get has have how i if in is it its just "
    "me my need no not of off on one or our out over please so that the them then there these they this to too up us "
    "want was we what when where which will with would you your"
)
STRUCTURES = (
    r'\{"tool":"',
    r'","arguments":\{"?',
    r'","reason":"',
    r"\??: (?:str|int|float|bool|list\[str\])(?:, |\)(?:: )?)?",
    r'\??: "',
)
WORD = r"\p{Lu}?[\p{Ll}\p{M}]+|\p{Lu}+(?!\p{Ll})|\p{Lo}+"
PIECES = "|".join((
    *STRUCTURES,
    rf" (?:{FUNCTION_WORDS.replace(' ', '|')})(?![\p{{L}}\p{{M}}_'])",
    WORD,
    r"\p{N}",
    r"_",
    r"[^\s\p{L}\p{N}_]+ ?",
    r"\s",
))  # fmt: skip
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
KNOWN = 12_000  # words of the list that are taken for common
EPISODES = 9000
SEED = 20_261_125


def empty() -> Tokenizer:
    """The tokenizer's pipeline without a vocabulary."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def texts(data: str) -> Iterator[str]:
    """A sample of what training reads: system messages, requests and answers."""
    mixture = load_mixture(data)(SEED, False)
    for _ in range(EPISODES):
        episode = mixture.episode(10)
        yield f"system\n{system_message(episode.catalogue)}\nuser\nassistant\n"
        for turn in episode.turns:
            yield turn.request
            yield assistant_text(turn.target, episode.catalogue)


def make(data: str, word_list: Sequence[str]) -> Tokenizer:
    """The trained tokenizer, `VOCABULARY` tokens in all."""
    sample = list(texts(data))
    found = empty()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=MERGED, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False,
        limit_alphabet=300, min_frequency=3,
    )  # fmt: skip
    found.train_from_iterator(sample, trainer)
    counts = Counter(word for text in sample for word in re.findall(r"[A-Z]?[a-z]{2,}", text))
    listed = [word for word in word_list if re.fullmatch("[a-z]{3,}", word)]
    known = set(listed[:KNOWN])
    frequent = [word for word, count in counts.most_common() if count >= (20 if word.lower() in known else 200)]
    model = json.loads(found.to_str())
    vocabulary: dict[str, int] = model["model"]["vocab"]
    for word in (*frequent, *listed):
        if len(vocabulary) == VOCABULARY:
            break
        vocabulary.setdefault(word, len(vocabulary))
    return Tokenizer.from_str(json.dumps(model))


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the tokenizer's files: those that transformers and mlx-lm load."""
    folder.mkdir(parents=True, exist_ok=True)
    compact = json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False, separators=(",", ":"))
    (folder / "tokenizer.json").write_text(compact + "\n", encoding="utf-8")
    settings = {
        "backend": "tokenizers", "clean_up_tokenization_spaces": False, "eos_token": "<|im_end|>",
        "model_max_length": 4096, "pad_token": "<|pad|>", "tokenizer_class": "TokenizersBackend",
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the tokenizer as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m mlx_router.tiny.pretrain.tokenizer", description=__doc__)
    parser.add_argument("--data", default="", help="folder of the real sets; without it, written texts alone")
    parser.add_argument("--words", default="", help="word list, one a line, the commonest first")
    parser.add_argument("--out", required=True, help="folder for the tokenizer's files")
    options = parser.parse_args(arguments)
    words = Path(options.words).read_text(encoding="utf-8").splitlines() if options.words else []
    tokenizer = make(options.data, words)
    save(tokenizer, Path(options.out))
    print(f"{tokenizer.get_vocab_size()} tokens")


if __name__ == "__main__":
    main()
