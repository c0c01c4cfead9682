"""Ranks: the processes that `mlx.launch` starts for one run, each with its share of the rows.

All ranks run the same program and decide the same. The first alone writes where the user asked for it, prints and
reports; the others write to a folder that is removed. Every rank passes bytes to all others and nothing else, so that
what is summed or decided is the same on each of them.
"""

import hashlib
import json
import math
import os
import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from .errors import RouterError, TrainingError
from .runtime import prepare

T = TypeVar("T")
# What MLX's ring says where another process has ended.
LOST = "connection to a peer was lost"


@dataclass(frozen=True)
class Ranks:
    """This process's number among those of a run, and how many there are. One process is the usual case."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes and speaks."""
        return self.rank == 0

    def share(self, rows: Sequence[T]) -> Sequence[T]:
        """The rows that fall to this rank: every so many-th, which spreads long ones."""
        return rows[self.rank :: self.size]

    def merge(self, shares: Sequence[Sequence[T]]) -> list[T]:
        """The shares of all ranks as one sequence, in the order of the rows."""
        return [shares[at % self.size][at // self.size] for at in range(sum(map(len, shares)))]

    def gather(self, data: bytes) -> list[bytes]:
        """What each rank passes, on every rank, in their order. All have to call it; it waits for the last."""
        if self.size == 1:
            return [data]
        import mlx.core as mx
        import numpy as np

        def passed(array: Any) -> Any:
            # On the CPU's stream: a GPU that waits for another machine is stopped by macOS after some seconds.
            found = mx.distributed.all_gather(mx.array(array), stream=mx.cpu)
            # Evaluated by NumPy instead, it would hold zeros where another rank has ended, and raise nothing.
            mx.eval(found)
            return np.array(found)

        sizes = passed(np.array([len(data)], np.int64))
        padded = np.zeros(max(1, int(sizes.max())), np.uint8)
        padded[: len(data)] = np.frombuffer(data, np.uint8)
        rows = passed(padded).reshape(self.size, -1)
        return [row[:size].tobytes() for row, size in zip(rows, sizes, strict=True)]

    def from_first(self, make: Callable[[], bytes]) -> bytes:
        """What the first rank makes, on every rank."""
        return self.gather(make() if self.first else b"")[0]

    def sum(self, value: float) -> float:
        """The sum of all ranks' values; the same bits on each."""
        return math.fsum(struct.unpack("<d", one)[0] for one in self.gather(struct.pack("<d", value)))

    def any(self, value: bool) -> bool:
        """Whether it holds on any rank."""
        return any(one != b"\0" for one in self.gather(bytes([value])))

    def wait(self) -> None:
        """Wait until all ranks are here."""
        self.gather(b"")

    def agree(self, facts: Mapping[str, str]) -> None:
        """Raise `TrainingError` naming the facts that are not the same on all ranks."""
        found = [json.loads(one) for one in self.gather(json.dumps(dict(facts)).encode())]
        wrong = [name for name in facts if len({one.get(name) for one in found}) > 1]
        if wrong:
            lines = "\n".join(f"  {name}: {', '.join(str(one.get(name)) for one in found)}" for name in wrong)
            raise TrainingError(
                f"the ranks do not work on the same; by rank:\n{lines}",
                hint="give every machine the same files, the same base and the same versions",
            )


ALONE = Ranks()


def join() -> Ranks:
    """This process's place in the run that it was started for; `ALONE` without `mlx.launch`.

    Raises `RouterError` where `mlx.launch` started several processes that do not find each other.
    """
    prepare()
    import mlx.core as mx

    group = mx.distributed.init()
    if group.size() == 1 and os.environ.get("MLX_RANK", "0") != "0":
        raise RouterError(
            f"this is rank {os.environ['MLX_RANK']} of a run, but MLX found no other process",
            hint="this build of MLX may lack the backend: try mlx.launch --backend ring (docs/distributed.md)",
        )
    return Ranks(group.rank(), group.size()) if group.size() > 1 else ALONE


@contextmanager
def together(ranks: Ranks) -> Iterator[None]:
    """Say which rank an error is of, and turn the loss of another rank into one."""
    try:
        yield
    except RouterError as error:
        if not ranks.first:
            error.message = f"rank {ranks.rank}: {error.message}"
            error.args = (error.message,)
        raise
    except RuntimeError as error:
        if LOST not in str(error):
            raise
        raise RouterError(
            f"rank {ranks.rank} lost another rank: it ended, or the connection to it broke",
            hint="its own message says why; a training run goes on from its last checkpoint with --resume",
        ) from error


@contextmanager
def own_folder(ranks: Ranks, folder: Path) -> Iterator[Path]:
    """The folder itself for the first rank; for the others one that is removed in the end."""
    if ranks.first:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="mlx-router-") as scratch:
        yield Path(scratch) / "run"


def folder_hash(folder: Path) -> str:
    """SHA-256 (hex) of the manifest and the weights in a folder."""
    found = hashlib.sha256()
    for path in sorted([*folder.glob("*.safetensors"), *folder.glob("router.json")]):
        with path.open("rb") as file:
            found.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return found.hexdigest()


def send_files(ranks: Ranks, folder: Path) -> None:
    """Give every rank the first one's files of a folder, so that all go on from the same."""
    if ranks.size == 1:
        return
    files = sorted(path for path in folder.iterdir() if path.is_file()) if ranks.first else []
    names = json.loads(ranks.from_first(lambda: json.dumps([path.name for path in files]).encode()))
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        content = ranks.from_first((folder / name).read_bytes)
        if not ranks.first:
            (folder / name).write_bytes(content)
