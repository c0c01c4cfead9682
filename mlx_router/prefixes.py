"""Prefilled prefixes: what a model's caches hold after a system message, kept in memory and, if wanted, on disk."""

import copy
import hashlib
import io
import json
import logging
import os
import tempfile
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .attention import ContinuedCache, Parts, continuable, fast_kernels, prefix_parts
from .calls import Message
from .heads import logits_at
from .model import Model

import mlx.core as mx  # isort: skip  (model.py has put the BLAS in place)
from mlx.utils import tree_flatten, tree_unflatten  # isort: skip
from mlx_lm.models.cache import make_prompt_cache  # isort: skip

logger = logging.getLogger("mlx_router")

PREFILL_CHUNK = 512
KEPT_PREFIXES = 8
KEPT_BYTES = 2 * 1024**3
CACHE_BYTES = 2 * 1024**3
SUFFIX = ".prefix"
ASIDE = ".part"
MAGIC = b"mlx-router prefix 1\n"
# A file aside that is older belongs to a process that is gone.
ASIDE_SECONDS = 3600


@dataclass(frozen=True)
class Prefix:
    """A system message's tokens and the model's caches after them, which nobody changes.

    `parts`, where all layers have them, are what rows and texts can share without a copy.
    """

    tokens: tuple[int, ...]
    cache: Any
    parts: Sequence[Parts] | None = None

    @classmethod
    def of(cls, tokens: tuple[int, ...], cache: Any) -> "Prefix":
        """The prefix of computed caches."""
        if not tokens or not all(map(continuable, cache)):
            return cls(tokens, cache)
        parts = [prefix_parts(layer) for layer in cache]
        mx.eval(parts)
        settle(cache)
        return cls(tokens, cache, parts)

    def continued(self) -> Any:
        """Caches for one text that goes on from the prefix."""
        if self.parts is not None:
            return [ContinuedCache(parts) for parts in self.parts]
        # A copy is right for every kind of cache; some can't be trimmed back to the prefix.
        return copy.deepcopy(self.cache)

    @property
    def nbytes(self) -> int:
        """The bytes that the caches take."""
        return sum(leaf.nbytes for _, leaf in _leaves(self.cache) if isinstance(leaf, mx.array))


class PrefixCache:
    """The prefixes of a model's last few system messages, the least recently used out first.

    At most `kept` of them and, but for the last one used, `max_bytes`. With `files` a prefix that is not in memory is
    looked for on disk, and one that was run is written there.
    """

    def __init__(
        self,
        model: Model,
        files: "PrefixFiles | None" = None,
        *,
        kept: int = KEPT_PREFIXES,
        max_bytes: int = KEPT_BYTES,
    ) -> None:
        self.model = model
        self.files = files
        self.kept = kept
        self.max_bytes = max_bytes
        self._prefixes: OrderedDict[str, Prefix] = OrderedDict()

    def __len__(self) -> int:
        return len(self._prefixes)

    @property
    def nbytes(self) -> int:
        """The bytes of all that is kept in memory."""
        return sum(prefix.nbytes for prefix in self._prefixes.values())

    def get(self, messages: Sequence[Message]) -> Prefix:
        """The prefix of these messages' system message; run if it is kept nowhere."""
        system = messages[0]["content"]
        prefix = self._prefixes.get(system)
        if prefix is None:
            prefix = self._prefixes[system] = self._make(messages[0])
            while len(self) > self.kept or (len(self) > 1 and self.nbytes > self.max_bytes):
                self._prefixes.popitem(last=False)
        self._prefixes.move_to_end(system)
        return prefix

    def _make(self, system: Message) -> Prefix:
        """Run what all prompts of this system message begin with, or take it from the disk."""
        tokens = tuple(self.model.chat.shared_prefix(system))
        found = self.files.read(self.model, system, tokens) if self.files is not None and tokens else None
        if found is not None:
            return found
        cache = make_prompt_cache(self.model.network)
        if tokens:
            run(self.model.network, list(tokens), cache)
            settle(cache)
        prefix = Prefix.of(tokens, cache)
        if self.files is not None and tokens:
            self.files.write(self.model, system, prefix)
        return prefix


def run(network: Any, tokens: list[int], cache: Any, rows: int = 1) -> mx.array:
    """Logits (rows, V) after each of the last tokens; long prompts go through in chunks, to bound memory.

    The head runs on the last rows alone.
    """
    with fast_kernels(network):
        while len(tokens) >= PREFILL_CHUNK + rows:
            network(mx.array([tokens[:PREFILL_CHUNK]]), cache=cache)
            settle(cache)
            tokens = tokens[PREFILL_CHUNK:]
        return logits_at(network, mx.array([tokens]), cache, lambda found: found[:, -rows:])[0]


def settle(cache: Any) -> None:
    """Compute what the caches hold. Another thread can't: a lazy array belongs to the thread that made it."""
    mx.eval([layer.state for layer in cache])


class PrefixFiles:
    """Prefixes in a folder, so that the first request after a start does not wait for the catalogue to be run.

    A file is found by all that its content depends on: model, adapter, tokenizer, template, system message, versions.
    One that is damaged, or does not say that it is the one looked for, is passed over and made again. Files are written
    aside and renamed; above `max_bytes` the least recently used are removed. A folder that can't be read or written is
    reported in the log and slows nothing but the start.
    """

    def __init__(self, folder: Path, max_bytes: int = CACHE_BYTES) -> None:
        self.folder = folder
        self.max_bytes = max_bytes

    def path(self, model: Model, system: Message, tokens: Sequence[int]) -> Path:
        """Where the prefix of this system message lies or would lie."""
        return self.folder / f"{_sha256(_key(model, system, tokens).encode())}{SUFFIX}"

    def read(self, model: Model, system: Message, tokens: tuple[int, ...]) -> Prefix | None:
        """The prefix, if a whole file holds it."""
        path = self.path(model, system, tokens)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            logger.warning("the prefix cache can't be read: %s", error)
            return None
        try:
            cache = _unpack(content, _key(model, system, tokens), model.network)
        except (ValueError, RuntimeError, KeyError, TypeError, IndexError, AttributeError) as error:
            # Whatever stands in the file, routing must not fail for it.
            logger.warning("%s is damaged or foreign, and is made again: %s", path, error)
            return None
        try:
            os.utime(path)
        except OSError as error:
            logger.warning("the prefix cache can't note that %s was used: %s", path, error)
        return Prefix.of(tokens, cache)

    def write(self, model: Model, system: Message, prefix: Prefix) -> None:
        """Write a prefix, unless it is larger than all files may be together."""
        path = self.path(model, system, prefix.tokens)
        try:
            content = _pack(prefix.cache, _key(model, system, prefix.tokens))
        except (ValueError, TypeError) as error:
            logger.warning("this model's prefix can't be kept on disk: %s", error)
            return
        if len(content) > self.max_bytes:
            logger.warning("a prefix of %d bytes is not kept: all may have %d", len(content), self.max_bytes)
            return
        try:
            self._replace(path, content)
            self._make_room()
        except OSError as error:
            logger.warning("the prefix cache can't be written: %s", error)

    def _replace(self, path: Path, content: bytes) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(suffix=ASIDE, prefix=path.stem[:16], dir=self.folder)
        aside = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            aside.replace(path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise

    def _make_room(self) -> None:
        """Remove what is least recently used above the cap, and what killed processes left aside."""
        now = time.time()
        for aside in self.folder.glob(f"*{ASIDE}"):
            if now - _seen(aside)[0] > ASIDE_SECONDS:
                aside.unlink(missing_ok=True)
        total = 0
        for (_, size), path in sorted(((_seen(path), path) for path in self.folder.glob(f"*{SUFFIX}")), reverse=True):
            total += size
            if total > self.max_bytes:
                path.unlink(missing_ok=True)


def _seen(path: Path) -> tuple[float, int]:
    """When a file was last used, and its size; nothing for one that another process has just removed."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return time.time(), 0
    return found.st_mtime, found.st_size


def _key(model: Model, system: Message, tokens: Sequence[int]) -> str:
    """All that a prefix depends on, as JSON."""
    prompt = {"system": _sha256(system["content"].encode()), "tokens": _sha256(json.dumps(list(tokens)).encode())}
    return json.dumps({**model.identity, **prompt, "chunk": PREFILL_CHUNK}, sort_keys=True)


def _leaves(cache: Any) -> list[tuple[str, Any]]:
    return list(tree_flatten([layer.state for layer in cache]))


def _pack(cache: Any, key: str) -> bytes:
    """The file's content: a line that names the format, the hash of what follows, and that as safetensors."""
    arrays: dict[str, mx.array] = {}
    values: dict[str, Any] = {}
    for place, leaf in _leaves(cache):
        if isinstance(leaf, mx.array):
            arrays[place] = leaf
        else:
            values[place] = leaf
    body = io.BytesIO()
    mx.save_safetensors(body, arrays, {"key": key, "values": json.dumps(values)})
    return MAGIC + hashlib.sha256(body.getbuffer()).digest() + body.getvalue()


def _unpack(content: bytes, key: str, network: Any) -> Any:
    """Fresh caches in the state that the content gives. Raises `ValueError` where it is not what is wanted."""
    size = len(MAGIC) + hashlib.sha256().digest_size
    if not content.startswith(MAGIC) or hashlib.sha256(content[size:]).digest() != content[len(MAGIC) : size]:
        raise ValueError("it is no whole file of this format")
    loaded: Any = mx.load(io.BytesIO(content[size:]), format="safetensors", return_metadata=True)
    arrays, metadata = loaded
    if metadata["key"] != key:
        raise ValueError("it belongs to another model or catalogue")
    states: Any = tree_unflatten([*arrays.items(), *json.loads(metadata["values"]).items()])
    cache = make_prompt_cache(network)
    for layer, state in zip(cache, states, strict=True):
        layer.state = state
    settle(cache)
    return cache


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
