"""Give a base more words: `python -m mlx_router.tiny.pretrain.growth --base DIR --words FILE --semantics E --out DIR`.

A word that is no token falls into pieces that mean nothing, and a request with such words goes wrong more often. New
tokens cost a table's row each, and no computation. Old tokens keep their numbers and vectors; a new word's first vector
is what the sentence encoder's vector of it explains of an embedding, with noise so that each can be told from the rest.
"""

import argparse
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from tokenizers import Tokenizer

from .corpus import corpus
from .model import EMBEDDING, OWN, PROJECTION, Model, Shape, Weights, export, load_weights, split_embedding
from .semantics import word_vectors
from .tokenizer import save

VOCABULARY = 24_576
SEED = 5
# Ranks in the word list: words below are common; those up to the last are words at all, not typing errors.
COMMON, COMMON_CAPITALISED, COMMON_CAPITALS = 13_000, 2500, 900
LISTED = 60_000
INHERITED = 0.5  # of the own part of the word in small letters that a form in capitals takes
LEAST_NOISE = 0.4  # of an old word's norm: a new word's noise at the least


def new_words(vocabulary: dict[str, int], texts: Iterable[str], listed: Sequence[str], room: int) -> list[str]:
    """At most `room` words that are no tokens yet: forms in capitals, then words of the texts, then common ones.

    `listed` has the commonest word first.
    """
    forms = Counter(
        word
        for text in texts
        for word in re.findall(r"(?<![A-Za-z])(?:[A-Z]?[a-z]{2,}|[A-Z]{2,})(?![A-Za-z])", text.replace("_", " "))
    )
    counts: Counter[str] = Counter()
    for word, count in forms.items():
        counts[word.lower()] += count
    top = [word for word in listed[:LISTED] if re.fullmatch("[a-z]{2,}", word)]
    known, common = set(top), set(top[:COMMON])
    longer = [word for word in top if len(word) > 2]
    found = [word.upper() for word in top[:COMMON_CAPITALS] if counts[word] >= 10]
    found += [word.capitalize() for word in longer if word in set(top[:COMMON_CAPITALISED]) and counts[word] >= 3]
    found += [w for w, n in forms.most_common() if n >= 8 and re.fullmatch("[A-Z][a-z]{2,}", w) and w.lower() in known]
    found += [w for w, n in counts.most_common() if n >= 6 and len(w) > 2 and w in known - common]
    found += [word for word in longer if word in common]
    return [word for word in dict.fromkeys(found) if word not in vocabulary][:room]


def grown_tokenizer(tokenizer: Tokenizer, words: Sequence[str]) -> Tokenizer:
    """The tokenizer with these words as tokens too, numbered after the others."""
    model = json.loads(tokenizer.to_str())
    vocabulary: dict[str, int] = model["model"]["vocab"]
    for word in words:
        vocabulary.setdefault(word, len(vocabulary))
    return Tokenizer.from_str(json.dumps(model))


def grown_weights(weights: Weights, tokenizer: Tokenizer, vectors: torch.Tensor) -> Weights:
    """The weights with a row for each token of the grown tokenizer; `vectors` (vocabulary, W) are the encoder's."""
    old = weights[EMBEDDING].shape[0]
    parts = split_embedding(weights, vectors[:old])
    own, projection = parts[OWN], parts[PROJECTION]
    tokens = {index: token for token, index in tokenizer.get_vocab().items()}
    words = [at for at in range(old) if vectors[at].norm() > 0 and not tokens[at].startswith("Ġ")]
    small_words = own[[at for at in words if tokens[at].islower()]]
    capitals = [at for at in words if not tokens[at].islower()]
    usual, spread = small_words.mean(0), small_words.std(0)
    usual_form = own[capitals].mean(0) if capitals else usual
    norm = weights[EMBEDDING][words].norm(dim=-1).median()
    generator = torch.Generator().manual_seed(SEED)
    rows = [weights[EMBEDDING]]
    for at in range(old, len(tokens)):
        token = tokens[at]
        row = (usual if token.islower() else usual_form) + vectors[at] @ projection
        small = tokenizer.token_to_id(token.lower())
        if not token.islower() and small is not None and small < old:
            row = row + INHERITED * (own[small] - usual)
        noise = torch.randn(len(row), generator=generator) * spread
        # As long as old words' rows: a shorter one loses to them where it is to be copied, and one too near its word
        # in small letters is written in these.
        rest = (norm**2 - row.norm() ** 2).clamp(min=(LEAST_NOISE * norm) ** 2).sqrt()
        rows.append((row + noise * rest / noise.norm())[None])
    return {**weights, EMBEDDING: torch.cat(rows)}


def grow(base: Path, out: Path, data: str, listed: Sequence[str], encoder: Path, size: int = VOCABULARY) -> int:
    """Write the grown base to `out` and return how many words are new."""
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    texts = (part for text in corpus(data, SEED) for part in (text.tool, text.text))
    words = new_words(tokenizer.get_vocab(), texts, listed, size - tokenizer.get_vocab_size())
    grown = grown_tokenizer(tokenizer, words)
    vectors = word_vectors(grown, encoder)
    save(grown, out)
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    config["vocab_size"] = grown.get_vocab_size()
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    weights = grown_weights(load_weights(base), grown, vectors)
    shape = replace(Shape.read(base), vocab_size=grown.get_vocab_size())
    export(Model(shape, weights), out, out, torch.float32)
    return len(words)


def main(arguments: Sequence[str] | None = None) -> None:
    """Grow as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m mlx_router.tiny.pretrain.growth", description=__doc__)
    parser.add_argument("--base", required=True, help="model folder to start from")
    parser.add_argument("--data", default="", help="folder of the real sets; without it, written texts alone")
    parser.add_argument("--words", required=True, help="word list, one a line, the commonest first")
    parser.add_argument("--semantics", required=True, help="folder of the sentence encoder that gives words' vectors")
    parser.add_argument("--size", type=int, default=VOCABULARY, help="tokens in all at the most")
    parser.add_argument("--out", required=True, help="folder for the grown base")
    options = parser.parse_args(arguments)
    listed = Path(options.words).read_text(encoding="utf-8").splitlines()
    count = grow(Path(options.base), Path(options.out), options.data, listed, Path(options.semantics), options.size)
    print(f"{count} new words")


if __name__ == "__main__":
    main()
