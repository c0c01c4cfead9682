"""What a manifest keeps of the data an adapter was trained on: hashes, never the text."""

import hashlib
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .data import Example
from .duplicates import fold
from .errors import ModelError

# Of 100,000 requests, one has the key of another with a chance of less than one in a billion.
KEY_BYTES = 6


def request_key(request: str) -> str:
    """A request with case, white space and punctuation folded, as hash (12 hex digits)."""
    return hashlib.sha256(fold(request).encode("utf-8", "surrogatepass")).hexdigest()[: 2 * KEY_BYTES]


def row_key(example: Example) -> tuple[str, str]:
    """What a manifest keeps of a row: the keys of its catalogue and of its request."""
    return example.catalogue.hash[:16], request_key(example.request)


def packed(keys: Iterable[str]) -> str:
    """Keys as one text: sorted, none twice, base64 of their bytes, eight characters each."""
    return b64encode(b"".join(bytes.fromhex(key) for key in sorted(set(keys)))).decode("ascii")


def recorded_requests(data: Mapping[str, Any], split: str) -> dict[str, set[str]] | None:
    """The keys of a split's requests by catalogue, from a manifest's `data`; None where it keeps none.

    Older manifests list keys of 16 digits. Raises `ModelError` for what is neither.
    """
    record = data.get(split)
    requests = record.get("requests") if isinstance(record, Mapping) else None
    if not isinstance(requests, Mapping):
        return None
    return {catalogue: _unpacked(keys, split) for catalogue, keys in requests.items()}


def _unpacked(keys: Any, split: str) -> set[str]:
    if isinstance(keys, list) and all(isinstance(key, str) for key in keys):
        return {key[: 2 * KEY_BYTES] for key in keys}
    try:
        found = b64decode(keys, validate=True)
    except (TypeError, ValueError):
        found = None
    if found is None or len(found) % KEY_BYTES:
        raise ModelError(
            f"the manifest's keys of its {split} requests can't be read", hint="copy the folder again, or train anew"
        )
    return {found[start : start + KEY_BYTES].hex() for start in range(0, len(found), KEY_BYTES)}


def data_record(source: str, examples: Sequence[Example]) -> dict[str, Any]:
    """Name, size, share of `no_tool` rows and a hash of a split, and the keys of its requests by catalogue."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(f"{example.request}\0{example.answer}\0{example.catalogue.hash}\n".encode())
    rows: dict[str, list[str]] = {}
    for example in examples:
        catalogue, request = row_key(example)
        rows.setdefault(catalogue, []).append(request)
    return {
        "source": source.replace("\\", "/").rpartition("/")[2],
        "rows": len(examples),
        "no_tool": sum(example.target.tool == "no_tool" for example in examples),
        "templates": sum(example.template for example in examples),
        "hash": digest.hexdigest(),
        "requests": {catalogue: packed(keys) for catalogue, keys in rows.items()},
    }
