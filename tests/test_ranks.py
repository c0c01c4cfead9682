"""Runs of several processes: what each does, and that together they make what one makes."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ScriptedDecoder
from tiny_models import make_recipe

from mlx_router import Router
from mlx_router.batches import TokenRow, make_batch
from mlx_router.calls import Abstention, Decision, Failure, NoTool, ParseFailure, Timings, ToolCall
from mlx_router.catalogue import Catalogue
from mlx_router.config import TrainConfig
from mlx_router.data import read
from mlx_router.errors import RequestError, RouterError, TrainingError
from mlx_router.evaluation import evaluate
from mlx_router.ranks import ALONE, Ranks, join, own_folder, together
from mlx_router.training import train

import mlx.core as mx  # isort: skip  (training has put the BLAS in place)

SETTINGS: dict[str, Any] = {"epochs": 3, "batch_size": 5, "gradient_accumulation_steps": 2, "save_every": 2}
needs_ring = pytest.mark.skipif(
    not mx.distributed.is_available("ring"), reason="this build of MLX has no ring backend, which local runs need"
)
# What each of two processes runs; argv: the folder with the recipes. The first rank writes what the test looks at.
PROGRAM = """
import json, os, signal, sys
from pathlib import Path
from mlx_router import Router, training, watching
from mlx_router.config import TrainConfig
from mlx_router.data import read
from mlx_router.errors import RouterError
from mlx_router.evaluation import evaluate
from mlx_router.interop import load_catalogue
from mlx_router.ranks import join
import mlx.core as mx

mx.disable_compile()
folder, ranks = Path(sys.argv[1]), join()

def recipe(name):
    config = TrainConfig.model_validate_json((folder / f"{name}.json").read_text(encoding="utf-8"))
    # As on two machines: the other one's folder is not this one's.
    return config if ranks.first else config.model_copy(update={"adapter": str(folder / "other" / name)})

def interrupt(event):
    if event["event"] == "progress" and event["update"] == 3:
        os.kill(os.getpid(), signal.SIGINT)

found = {"size": ranks.size, "events": []}
training.train(recipe("plain"), found["events"].append)
rows = read(recipe("plain").train, None if ranks.size == 0 else load_catalogue(recipe("plain").catalogue))
router = Router.load(TrainConfig.model_validate_json((folder / "plain.json").read_text(encoding="utf-8")).adapter)
found["outputs"] = [one.output for one in evaluate(router, rows, ranks=ranks)]
training.train(recipe("dropout"), training._unheard)
try:
    training.train(recipe("broken"), interrupt)
except KeyboardInterrupt:
    found["interrupted"] = True
training.train(recipe("broken"), training._unheard, resume=True)
try:
    training.train(recipe("other rows" if ranks.first else "plain"), training._unheard)
except RouterError as error:
    found["disagree"] = error.message
if not ranks.first:
    watching.mean_loss = lambda *_: os._exit(9)
try:
    training.train(recipe("dies"), training._unheard)
except RouterError as error:
    found["died"] = error.message
(folder / "found.json").write_text(json.dumps(found), encoding="utf-8")
"""


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def run_two(folder: Path, program: str, limit_s: float) -> list[tuple[int, str]]:
    """Exit code and stderr of two processes that find each other as `mlx.launch --backend ring` has them do."""
    hosts = folder / "hosts.json"
    hosts.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in free_ports(2)]), encoding="utf-8")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(folder)],
            env={**os.environ, "MLX_HOSTFILE": str(hosts), "MLX_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        end = time.monotonic() + limit_s
        errors = [one.communicate(timeout=max(1.0, end - time.monotonic()))[1] for one in processes]
    finally:
        for one in processes:
            one.kill()
    return [(one.returncode, error) for one, error in zip(processes, errors, strict=True)]


def weights(folder: str | Path) -> dict[str, np.ndarray]:
    found: Any = mx.load(f"{folder}/adapters.safetensors")
    return {name: np.array(value) for name, value in found.items()}


def losses(events: list[dict[str, Any]], kind: str) -> list[float]:
    return [event["loss"] for event in events if event["event"] == kind]


def write_recipe(folder: Path, name: str, config: TrainConfig, **fields: Any) -> TrainConfig:
    config = config.model_copy(update={"adapter": str(folder / name), **fields})
    (folder / f"{name}.json").write_text(config.model_dump_json(), encoding="utf-8")
    return config


@needs_ring
def test_two_processes_make_what_one_makes(tmp_path: Path) -> None:
    """Batches of 5, 5 and 2 rows of unequal length, two an update: the ranks' shares have unequal tokens."""
    made = make_recipe(tmp_path, **SETTINGS)
    made = made.model_copy(update={"valid": made.train})
    plain = write_recipe(tmp_path, "plain", made)
    dropout = write_recipe(tmp_path, "dropout", made, lora_dropout=0.2)
    write_recipe(tmp_path, "broken", made, lora_dropout=0.2)
    write_recipe(tmp_path, "dies", made)
    rows = Path(made.train).read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "fewer.jsonl").write_text("".join(rows[:-1]), encoding="utf-8")
    write_recipe(tmp_path, "other rows", made, train=str(tmp_path / "fewer.jsonl"))
    (first, errors), (second, _) = run_two(tmp_path, PROGRAM, 600)
    assert (first, second) == (0, 9), errors
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))

    alone: list[dict[str, Any]] = []
    config = plain.model_copy(update={"adapter": str(tmp_path / "alone")})
    train(config, alone.append)
    assert found["size"] == 2
    for kind in ("progress", "valid"):
        assert losses(found["events"], kind) == pytest.approx(losses(alone, kind), rel=1e-4)
    ours, theirs = weights(config.adapter), weights(plain.adapter)
    largest = max(float(np.abs(one).max()) for one in ours.values())
    assert max(float(np.abs(ours[name] - theirs[name]).max()) for name in ours) < 1e-3 * largest
    from mlx_router.interop import load_catalogue

    examples = read(config.train, load_catalogue(str(config.catalogue)))
    assert found["outputs"] == [one.output for one in evaluate(Router.load(plain.adapter), examples)]

    assert found["interrupted"]
    unbroken, broken = weights(dropout.adapter), weights(tmp_path / "broken")
    assert all(np.array_equal(unbroken[name], broken[name]) for name in unbroken), "bit for bit, dropout and all"
    assert not (tmp_path / "other").exists(), "only the first rank writes"
    assert "rows" in found["disagree"]
    assert "lost another rank" in found["died"]
    assert not (tmp_path / "dies" / "router.json").exists()


# --- one process, which plays several


class Playing(Ranks):
    """A rank whose fellows pass what a list says."""

    def gather(self, data: bytes) -> list[bytes]:
        return [data, *others]


others: list[bytes] = []


@pytest.mark.parametrize("count", [0, 1, 5, 6])
def test_shares_merge_to_the_rows_in_their_order(count: int) -> None:
    rows = list(range(count))
    assert Ranks(0, 3).merge([Ranks(rank, 3).share(rows) for rank in range(3)]) == rows


def test_a_batchs_shares_are_its_rows_and_a_rank_without_one_learns_nothing() -> None:
    rows = [TokenRow((1, 2), tuple(range(5, 9 + at)), 2, f"rows.jsonl:{at}") for at in range(3)]
    batch = make_batch(rows)
    for size in (1, 2, 3, 5):
        shares = [batch.share(rank, size) for rank in range(size)]
        assert sum(share.answer_tokens for share in shares) == batch.answer_tokens
        assert sorted(where for share in shares if share.answer_tokens for where in share.rows) == list(batch.rows)
        assert all(len(share.suffix) for share in shares)


def test_all_get_the_decisions_of_all_ranks(catalogue: Catalogue) -> None:
    decisions = [
        Decision(
            ToolCall(tool="track_order", arguments={"order_id": "é", "n": 1.0}), "raw", confidence=0.5, grounded=True
        ),
        Decision(NoTool(reason="chitchat"), "x", timings=Timings(1.0, 0.5, 0.5, 3, 2, 1, 1), action="answer"),
        Decision(ParseFailure(Failure.TRUNCATED, "cut"), "", overridden=0.25),
        Decision(Abstention("escalate"), '{"tool":"esc', confidence=0.25),
        RequestError("too long"),
    ]
    from mlx_router.evaluation import _of_all, _plain_decisions

    others[:] = [_plain_decisions(decisions[1::2])]
    found = _of_all(Playing(0, 2), decisions[::2])
    assert found[:4] == decisions[:4]
    assert isinstance(found[4], RequestError) and found[4].message == "too long"
    assert repr(found[0]) == repr(decisions[0]), "1.0 stays a float"


def test_the_progress_of_a_share_counts_all_rows(catalogue: Catalogue, tmp_path: Path) -> None:
    said: list[int] = []
    made = make_recipe(tmp_path)
    from mlx_router.evaluation import _plain_decisions

    rows = read(made.train, catalogue)
    answer = '{"tool":"no_tool","reason":"x"}'
    router = Router(ScriptedDecoder(otherwise=answer), catalogue)
    half = [router.route_example(row) for row in rows[1::2]]
    fellow = iter([_plain_decisions(half), _plain_decisions([])])

    class One(Ranks):
        def gather(self, data: bytes) -> list[bytes]:
            return [data, next(fellow)]

    scored = evaluate(router, rows, said.append, ranks=One(0, 2))
    assert [one.example for one in scored] == rows
    assert said == [2, 4, 6, 8, 10, 12]


def test_ranks_that_work_on_different_things_are_told_so() -> None:
    ours = {"mlx": "0.32.4", "rows": "a"}
    others[:] = [json.dumps({"mlx": "0.32.2", "rows": "a"}).encode()]
    with pytest.raises(TrainingError, match=r"mlx: 0\.32\.4, 0\.32\.2") as caught:
        Playing(0, 2).agree(ours)
    assert "rows" not in caught.value.message
    others[:] = [json.dumps(ours).encode()]
    Playing(0, 2).agree(ours)


def test_a_process_that_finds_no_other_refuses_to_train_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both would write to one folder."""
    assert join() is ALONE
    monkeypatch.setenv("MLX_RANK", "1")
    with pytest.raises(RouterError, match="found no other process"):
        join()


def test_an_error_says_whose_it_is_and_a_lost_rank_is_one() -> None:
    with pytest.raises(TrainingError, match="rank 1: no rows"), together(Ranks(1, 2)):
        raise TrainingError("no rows")
    with pytest.raises(RouterError, match="rank 0 lost another rank"), together(Ranks(0, 2)):
        raise RuntimeError("[ring] connection to a peer was lost")
    with pytest.raises(RuntimeError, match="of another kind"), together(Ranks(0, 2)):
        raise RuntimeError("of another kind")


def test_only_the_first_rank_has_the_users_folder(tmp_path: Path) -> None:
    with own_folder(Ranks(0, 2), tmp_path) as folder:
        assert folder == tmp_path
    with own_folder(Ranks(1, 2), tmp_path) as folder:
        folder.mkdir()
        assert tmp_path not in folder.parents and folder != tmp_path
    assert not folder.exists()
