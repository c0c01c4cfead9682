"""What tests share: a decoder that says what it was told, the support catalogue, a trained adapter of kilobytes, and
the command line in this process.
"""

import io
import itertools
import json
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from mlx_router.calls import Draft, Generation, Message, Scores, Stop
from mlx_router.catalogue import Catalogue
from mlx_router.interop import load_catalogue
from mlx_router.router import Router

ROOT = Path(__file__).resolve().parent.parent
COUNTED = itertools.count()
CATALOGUE = ROOT / "data" / "support" / "catalogue.json"

# A shell without job control starts what runs in the background with Ctrl-C ignored, and all its children inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# What the trained adapter knows by heart: requests and the answers to them.
KNOWN: dict[str, dict[str, Any]] = {
    "Where's my order ORD-1234?": {"tool": "track_order", "arguments": {"order_id": "ORD-1234"}},
    "Refund ORD-7 please, it broke.": {
        "tool": "request_refund",
        "arguments": {"order_id": "ORD-7", "reason": "it broke"},
    },
    "A human, now!": {"tool": "escalate", "arguments": {"reason": "wants a human"}},
    "Hi!": {"tool": "no_tool", "reason": "chitchat"},
    "I want a refund.": {"tool": "no_tool", "reason": "missing_information: order_id, reason"},
}


class ScriptedDecoder:
    """A decoder that says what it was told to, by request, and keeps what it was asked in `asked`.

    An answer may be a `Generation` (a truncated one, or one with timings) or an error to raise. A request without an
    answer gets `otherwise`, and is a failed test without one.
    """

    def __init__(
        self, answers: Mapping[str, str | Generation | Exception] | None = None, otherwise: str | None = None
    ) -> None:
        self.answers = dict(answers or {})
        self.otherwise = otherwise
        self.constrained: dict[str, str | Generation | Exception] = {}
        self.asked: list[tuple[tuple[Message, ...], int]] = []

    def decode(
        self,
        messages: Sequence[Message],
        max_tokens: int,
        *,
        draft: Draft | None = None,
        names: Sequence[str] = (),
        grammar: str = "",
        stop: Stop | None = None,
    ) -> Generation:
        """The scripted answer to the last message; under a grammar that of `constrained`.

        It ends after the name where `stop` says so and a `Generation` gives the name's probability.
        """
        self.asked.append((tuple(messages), max_tokens))
        request = messages[-1]["content"]
        answer = (self.constrained if grammar else self.answers).get(request, self.otherwise)
        assert answer is not None, f"nothing is scripted for {request!r}"
        if isinstance(answer, Exception):
            raise answer
        generation = answer if isinstance(answer, Generation) else Generation(answer)
        known = generation.scores.tool if generation.scores else None
        if stop is not None and known is not None:
            name = generation.text.split('"')[3]
            if stop(name, known):
                return replace(generation, text=f'{{"tool":"{name}"', stopped=name)
        return generation

    @property
    def requests(self) -> list[str]:
        """The user's messages that reached the decoder."""
        return [messages[-1]["content"] for messages, _ in self.asked]

    @property
    def systems(self) -> list[str]:
        """The system messages that reached the decoder."""
        return [messages[0]["content"] for messages, _ in self.asked]


@dataclass(frozen=True)
class Ran:
    """What a command left: its exit code, stdout and stderr."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON document that is all of stdout."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """The JSON documents of stdout, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]


Run: TypeAlias = Callable[..., Ran]


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows as JSONL."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def known_rows(times: int = 1) -> list[dict[str, Any]]:
    """The rows that the trained adapter knows, in the short form."""
    return [{"request": request, "target": target} for request, target in KNOWN.items()] * times


def sure(text: str, confidence: float | None, runner_up: str | None = None) -> Generation:
    """An answer with the probability of its tool's name."""
    return Generation(text, scores=Scores(confidence, runner_up, None))


@pytest.fixture(autouse=True)
def draft_lengths(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where draft lengths are remembered in tests: not where the developer's own are."""
    import mlx_router.draft_lengths

    file = tmp_path_factory.getbasetemp() / "cache" / str(next(COUNTED)) / "draft_lengths.json"
    monkeypatch.setattr(mlx_router.draft_lengths, "lengths_file", lambda: file)
    return file


@pytest.fixture
def catalogue() -> Catalogue:
    """The three customer-support tools."""
    return load_catalogue(CATALOGUE)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch, catalogue: Catalogue) -> ScriptedDecoder:
    """`Router.load` gives a router of the support catalogue with this decoder, whatever the folder; fill `answers`."""
    decoder = ScriptedDecoder()
    monkeypatch.setattr(Router, "load", lambda *_, **__: Router(decoder, catalogue))
    return decoder


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `mlx-router` in this process: `run("route", "adapter", "Hi!", stdin=b"…")`."""
    from mlx_router.cli import main

    def command(*arguments: object, stdin: bytes = b"") -> Ran:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["mlx-router", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        with pytest.raises(SystemExit) as stop:
            main()
        captured = capsys.readouterr()
        return Ran(int(stop.value.code or 0), captured.out, captured.err)

    return command


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random base model of a few kilobytes."""
    from tiny_models import make_model

    return make_model(tmp_path_factory.mktemp("bases") / "base", "qwen3")


@pytest.fixture(scope="session")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter on the random base that has learnt the rows of `KNOWN` by heart. Tests must not change it."""
    from mlx_router.config import TrainConfig
    from mlx_router.training import train

    folder = tmp_path_factory.mktemp("trained")
    config = TrainConfig(
        model=str(base),
        adapter=str(folder / "adapter"),
        catalogue=str(CATALOGUE),
        train=str(write_rows(folder / "train.jsonl", known_rows(times=120))),
        valid=str(write_rows(folder / "valid.jsonl", known_rows())),
        epochs=1,
        learning_rate=1e-2,
        group_by_length=False,
        max_tokens=80,
    )
    return train(config, lambda event: None)


@pytest.fixture(scope="module")
def uncompiled() -> Iterator[None]:
    """Kernels would take longer to compile than to run."""
    from mlx_router.model import BACKEND

    import mlx.core as mx  # isort: skip  (model has put the BLAS in place)

    mx.disable_compile()
    yield
    if BACKEND.compile_enabled:
        mx.enable_compile()


def tiny_base(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shape and a tokenizer small enough for a few seconds to show."""
    from mlx_router.tiny.pretrain import tokenizer

    monkeypatch.setattr(tokenizer, "EPISODES", 300)
    monkeypatch.setattr(tokenizer, "MERGED", 2048)
    monkeypatch.setattr(tokenizer, "VOCABULARY", 2048)
    tokenizer.main(["--out", str(folder)])
    config = {
        **{"vocab_size": 2048, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64, "head_dim": 16},
        **{"num_attention_heads": 2, "rms_norm_eps": 1e-6, "rope_theta": 10000.0},
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder
