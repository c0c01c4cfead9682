"""What a manifest keeps of the data an adapter was trained on: hashes, never the text."""

import hashlib
from collections.abc import Sequence
from typing import Any

from .data import Example
from .duplicates import fold


def request_key(request: str) -> str:
    """A request with case, white space and punctuation folded, as hash (16 hex digits)."""
    return hashlib.sha256(fold(request).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def data_record(source: str, examples: Sequence[Example]) -> dict[str, Any]:
    """Name, size, share of `no_tool` rows and a hash of a split, and the keys of its requests by catalogue."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(f"{example.request}\0{example.answer}\0{example.catalogue.hash}\n".encode())
    rows: dict[str, list[str]] = {}
    for example in examples:
        rows.setdefault(example.catalogue.hash[:16], []).append(request_key(example.request))
    return {
        "source": source.replace("\\", "/").rpartition("/")[2],
        "rows": len(examples),
        "no_tool": sum(example.target.tool == "no_tool" for example in examples),
        "templates": sum(example.template for example in examples),
        "hash": digest.hexdigest(),
        "requests": {catalogue: sorted(set(keys)) for catalogue, keys in rows.items()},
    }
