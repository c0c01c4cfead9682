"""Train the embedded base: `python -m mlx_router.tiny.pretrain.train --data DIR --out RUN --minutes N [--init DIR]`.

The budget is wall-clock time, and the learning rate falls to nothing at its end. A run that was stopped goes on from
RUN/checkpoint.pt when it is started again with the same arguments.
"""

import argparse
import json
import math
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.utils.data import DataLoader

from .corpus import corpus
from .distil import Lessons, Meaning
from .mixture import load_mixture
from .model import Model, Shape, attention_bias, export, load_weights, random_weights, split_embedding
from .optimizer import Optimizer
from .packing import PADDING, Encoder, Packer, Row
from .semantics import WORD, first_projection, word_vectors

# Tokens of a row, in turn, so that short rows are cheap and long catalogues are seen.
LENGTHS = (512, 768, 2048, 512, 768, 768, 512, 768, 768, 2048)
LONG = 2048  # tokens of a row from which on its catalogues are large
TOKENS_PER_STEP = 6144
LEARNT_PER_STEP = 1664  # answers' tokens that a step learns at the most; the same number always, for compiled code
WARMUP_STEPS = 60
FULL_UNTIL = 0.25  # part of the time at the full learning rate
REPORT_EVERY = 20
ASKED_PER_STEP = 24  # requests in their context whose vectors are to be told
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Settings:
    """What a run is started with."""

    data: str
    out: str
    base: str
    init: str
    minutes: float
    seed: int
    processes: int
    scale: float
    checkpoint_minutes: float
    port: int
    dtype: str
    semantics: str
    compile: bool
    device: str
    rows: int
    workers: int
    distil: float
    distil_texts: int


@dataclass
class Progress:
    """How far a run is; part of its checkpoint."""

    step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    requests: int = 0
    loss: float = math.nan


@dataclass(frozen=True)
class Batch:
    """Rows as tensors (B, T), as in `Row`; flat places before the tokens that are learnt, and their weights (K).

    `asked` holds the flat places where requests end, and what they say.
    """

    tokens: torch.Tensor
    before: torch.Tensor
    weight: torch.Tensor
    positions: torch.Tensor
    episodes: torch.Tensor
    turns: torch.Tensor
    asked: tuple[tuple[int, str], ...]

    @property
    def requests(self) -> int:
        """How many requests the rows hold."""
        return len(self.asked)

    def moved(self, device: str) -> "Batch":
        """The batch on a device."""
        names = ("tokens", "before", "weight", "positions", "episodes", "turns")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})


class Data:
    """Batches that depend on nothing but seed, rank and step, so that a restart repeats none and skips none."""

    def __init__(self, data: str, encoder: Encoder, seed: int, rank: int, times: int = 1) -> None:
        self.encoder, self.seed, self.rank, self.times = encoder, seed, rank, times
        words = (token for token in sorted(encoder.tokenizer.get_vocab()) if WORD.fullmatch(token) and len(token) > 3)
        # A token that holds the space before it is no word that a request could hold.
        self.mixture = load_mixture(data, [word for word in words if not word.startswith("Ġ")])

    def __getitem__(self, step: int) -> Batch:
        """The batch of one step."""
        rng = random.Random(f"{self.seed}/{self.rank}/{step}")
        length = LENGTHS[step % len(LENGTHS)]
        packer = Packer(self.encoder, self.mixture(rng.getrandbits(64), length >= LONG), length, rng)
        rows = [packer.row() for _ in range(self.times * TOKENS_PER_STEP // length)]
        return as_batch(rows, length, rng, self.times * LEARNT_PER_STEP)


def batches(data: Data, first: int, workers: int) -> Iterable[Batch]:
    """The batches from one step on, in their order; with workers, made ahead of time in so many processes."""
    # A worker takes the words and scenes that are in memory already.
    context = "fork" if workers else None
    made: Iterable[Batch] = DataLoader(
        data,
        batch_size=None,
        sampler=range(first, 1 << 62),
        num_workers=workers,
        collate_fn=as_it_is,
        multiprocessing_context=context,
    )
    return made


def as_it_is(batch: Batch) -> Batch:
    """What a loader's own conversion is to leave alone."""
    return batch


def as_batch(rows: Sequence[Row], length: int, rng: random.Random, learnt: int = LEARNT_PER_STEP) -> Batch:
    """Rows padded to one length, with this many tokens learnt at the most."""

    def padded(values: Sequence[Sequence[int]], fill: int) -> torch.Tensor:
        return torch.tensor([[*row, *[fill] * (length - len(row))] for row in values])

    # The first token of an answer and the last say nothing new; a quarter of them will do.
    places = [
        number * length + at - 1
        for number, row in enumerate(rows)
        for at, answer in enumerate(row.learnt)
        if answer and (rng.random() < 0.25 or row.inner(at))
    ]
    if len(places) > learnt:
        places = sorted(rng.sample(places, learnt))
    empty = learnt - len(places)
    return Batch(
        padded([row.tokens for row in rows], 0),
        torch.tensor(places + [0] * empty),
        torch.tensor([1.0] * len(places) + [0.0] * empty),
        padded([row.positions for row in rows], 0),
        padded([row.episodes for row in rows], PADDING),
        padded([row.turns for row in rows], PADDING),
        tuple((number * length + at, text) for number, row in enumerate(rows) for at, text in row.asked),
    )


class Run:
    """One process of a training run."""

    def __init__(self, settings: Settings, rank: int) -> None:
        self.settings, self.rank = settings, rank
        self.out, self.base, self.dtype = Path(settings.out), Path(settings.base), DTYPES[settings.dtype]
        encoder = Encoder(self.base / "tokenizer.json")
        self.data = Data(settings.data, encoder, settings.seed, rank, settings.rows)
        shape = Shape.read(self.base)
        weights = load_weights(Path(settings.init)) if settings.init else random_weights(shape, settings.seed)
        vectors = word_vectors(encoder.tokenizer, Path(settings.semantics)) if settings.semantics else None
        if vectors is not None:
            first = None if settings.init else first_projection(vectors, shape.hidden_size)
            weights = split_embedding(weights, vectors, first)
            vectors = vectors.to(settings.device)
        weights = {name: weight.to(settings.device).requires_grad_() for name, weight in weights.items()}
        self.model = Model(shape, weights, vectors)
        self.meaning = self._second_teacher(encoder) if settings.distil else None
        self.loss = torch.compile(self.model.loss, dynamic=False) if settings.compile else self.model.loss
        self.optimizer = Optimizer(self.model.weights, self.dtype)
        self.progress, self.meant = Progress(), math.nan

    def train(self) -> None:
        """Steps until the time is over; then the last checkpoint and the model folder."""
        self._restore()
        begun, saved = time.monotonic() - self.progress.seconds, time.monotonic()
        made = iter(batches(self.data, self.progress.step, self.settings.workers))
        while (part := self._agree((time.monotonic() - begun) / (60 * self.settings.minutes))) < 1:
            self._step(next(made), rate_scale(part, self.progress.step) * self.settings.scale)
            self.progress.seconds = time.monotonic() - begun
            if self.rank == 0 and self.progress.step % REPORT_EVERY == 0:
                self._report()
            if self.rank == 0 and time.monotonic() - saved > 60 * self.settings.checkpoint_minutes:
                self.save()
                saved = time.monotonic()
        if self.rank == 0:
            self._report()
            self.save()

    def _step(self, made: Batch, scale: float) -> None:
        batch = made.moved(self.settings.device)
        bias = attention_bias(batch.episodes, batch.turns, self.dtype)
        rng = random.Random(f"texts/{self.settings.seed}/{self.rank}/{self.progress.step}")
        loss, states = self.loss(batch.tokens, batch.before, batch.weight, batch.positions, bias, self.dtype)
        if self.meaning is None:
            loss.backward()
        else:
            asked = rng.sample(batch.asked, min(ASKED_PER_STEP, len(batch.asked)))
            (loss + self.meaning.in_context(self.model, states, asked)).backward()
            self.meant = smoothed(self.meant, self.meaning.backward(self.model, rng))
        self._average_gradients()
        self.optimizer.step(scale)
        for weight in self.model.weights.values():
            weight.grad = None
        processes, value = self.settings.processes, loss.item()
        self.progress.step += 1
        self.progress.tokens += batch.tokens.numel() * processes
        self.progress.requests += batch.requests * processes
        self.progress.loss = smoothed(self.progress.loss, value)

    def _second_teacher(self, encoder: Encoder) -> Meaning:
        """Make what is not there yet of the texts' vectors, together, and the heads' first weights."""
        settings = self.settings
        teacher = Path(settings.semantics)
        lessons = Lessons(self.out / "texts", corpus(settings.data, settings.seed), encoder)
        lessons.prepare(teacher, self.rank, settings.processes)
        if settings.processes > 1:
            dist.barrier()
        meaning = Meaning(lessons, teacher, settings.distil, settings.distil_texts)
        heads = meaning.first_heads(self.model)
        self.model.weights.update({name: head.requires_grad_() for name, head in heads.items()})
        return meaning

    def _average_gradients(self) -> None:
        if self.settings.processes == 1:
            return
        weights = list(self.model.weights.values())
        flat = torch.cat([weight.grad.reshape(-1) for weight in weights])
        dist.all_reduce(flat)
        flat /= self.settings.processes
        for weight, gradient in zip(weights, flat.split([w.numel() for w in weights]), strict=True):
            weight.grad.copy_(gradient.view_as(weight))

    def _agree(self, part: float) -> float:
        """Rank 0's value, so that all processes stop at the same step."""
        if self.settings.processes == 1:
            return part
        shared = torch.tensor([part], dtype=torch.float64)
        dist.broadcast(shared, 0)
        return float(shared.item())

    def _report(self) -> None:
        record = {**asdict(self.progress), "tokens_per_second": self.progress.tokens / max(1e-9, self.progress.seconds)}
        if self.meaning is not None:
            record["meaning"] = self.meant
        line = json.dumps({name: round(value, 4) for name, value in record.items()})
        with (self.out / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(line, flush=True)

    def save(self) -> None:
        """Checkpoint and model folder, each written aside and renamed."""
        state = {
            "weights": {name: weight.detach() for name, weight in self.model.weights.items()},
            "optimizer": self.optimizer.state(),
            "progress": asdict(self.progress),
            "settings": asdict(self.settings),
        }
        aside = self.out / "checkpoint.tmp"
        torch.save(state, aside)
        aside.replace(self.out / "checkpoint.pt")
        export(self.model, self.base, self.out / "model")

    def _restore(self) -> None:
        path = self.out / "checkpoint.pt"
        if not path.exists():
            return
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location=self.settings.device)
        with torch.no_grad():
            for name, weight in self.model.weights.items():
                weight.copy_(state["weights"][name])
        self.optimizer.restore(state["optimizer"])
        self.progress = Progress(**state["progress"])


def smoothed(mean: float, value: float) -> float:
    """The running mean with one more value."""
    return value if math.isnan(mean) else 0.95 * mean + 0.05 * value


def rate_scale(part: float, step: int) -> float:
    """Warm up over the first steps, stay, then fall in a line to nothing at the end of the time."""
    return min(1.0, (step + 1) / WARMUP_STEPS) * min(1.0, max(0.0, 1 - part) / (1 - FULL_UNTIL))


def work(rank: int, settings: Settings) -> None:
    """One process's whole life."""
    torch.set_num_threads(1)
    if settings.processes > 1:
        address = f"tcp://127.0.0.1:{settings.port}"
        dist.init_process_group(
            "gloo", init_method=address, rank=rank, world_size=settings.processes, timeout=timedelta(minutes=10)
        )
    Run(settings, rank).train()
    if settings.processes > 1:
        dist.destroy_process_group()


def read_arguments(arguments: Sequence[str] | None = None) -> Settings:
    """The command line."""
    package = Path(__file__).resolve().parents[1]
    parser = argparse.ArgumentParser(prog="python -m mlx_router.tiny.pretrain.train", description=__doc__)
    parser.add_argument("--data", default="", help="folder of the real sets; without it, synthetic tools alone")
    parser.add_argument("--out", required=True, help="folder of the run: checkpoint.pt, log.jsonl, model/")
    parser.add_argument("--base", default=str(package), help="model folder that gives shape and tokenizer")
    parser.add_argument("--init", default="", help="model folder that gives the first weights; random without it")
    parser.add_argument("--minutes", type=float, required=True, help="wall-clock budget")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--scale", type=float, default=1.0, help="part of the full rates; about 0.6 with --init")
    parser.add_argument("--checkpoint-minutes", type=float, default=4.0)
    parser.add_argument("--port", type=int, default=29541)
    # bf16 pays only where the processor multiplies it in hardware (AMX); elsewhere f32 is the faster one.
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="float32")
    parser.add_argument("--semantics", default="", help="folder of the sentence encoder that gives words' vectors")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--rows", type=int, default=1, help="times the rows of a step: more for a GPU")
    parser.add_argument("--workers", type=int, default=0, help="processes that make batches ahead of time (Linux)")
    parser.add_argument("--distil", type=float, default=0.0, help="weight of the encoder's vectors as a second target")
    parser.add_argument("--distil-texts", type=int, default=192, help="texts a step whose vectors are to be told")
    parser.add_argument("--compile", action="store_true", help="compile the model: faster, if there is a C++ compiler")
    options = parser.parse_args(arguments)
    if options.distil and (not options.semantics or options.device != "cpu" or options.dtype != "float32"):
        parser.error("--distil needs --semantics, and runs on a CPU in float32")
    return Settings(**vars(options))


def main(arguments: Sequence[str] | None = None) -> None:
    """Train as the command line says."""
    settings = read_arguments(arguments)
    Path(settings.out).mkdir(parents=True, exist_ok=True)
    if settings.processes == 1:
        work(0, settings)
    else:
        mp.spawn(work, args=(settings,), nprocs=settings.processes)


if __name__ == "__main__":
    main()
