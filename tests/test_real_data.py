"""Requests that others wrote: read, checked and scored by the same code. Skipped where they do not lie beside us."""

from pathlib import Path

import pytest
from conftest import Run

from mlx_router.calls import Decoder, Generation
from mlx_router.data import read
from mlx_router.evaluation import Evaluation, evaluate
from mlx_router.prompts import assistant_text
from mlx_router.router import Router

DATA = Path(__file__).parents[2] / "shared" / "data"
SNIPS = DATA / "snips_mix"

pytestmark = pytest.mark.skipif(not SNIPS.is_dir(), reason="the real data are not here")


@pytest.mark.parametrize(("split", "rows"), [("train", 4090), ("valid", 452), ("test", 420)])
def test_every_row_of_snips_mix_is_read(split: str, rows: int) -> None:
    found = read(SNIPS / f"{split}.jsonl.gz")
    assert len(found) == rows
    assert all(example.catalogue.get(example.target.tool) or example.target.tool == "no_tool" for example in found)


@pytest.mark.parametrize("path", sorted(DATA.glob("*/valid.jsonl.gz")), ids=lambda path: path.parent.name)
def test_every_gold_target_is_what_its_own_text_parses_to(path: Path) -> None:
    """A router that says the gold text is wholly right: rendering, parsing and comparing agree on real values."""

    class Gold(Decoder):
        def decode(self, messages, max_tokens, *, draft=None, names=()):  # type: ignore[no-untyped-def]
            return Generation(answers[messages[-1]["content"]])

    distinct = list({example.request: example for example in read(path)[:300]}.values())
    # Of a request in capitals the model reads and says the small form; the router compares what was written.
    shown = [example.as_shown() for example in distinct]
    answers = {example.request: assistant_text(example.target, example.catalogue) for example in shown}
    metrics = Evaluation.of(evaluate(Router(Gold(), distinct[0].catalogue), distinct)).metrics
    assert metrics["exact_match"].value == 1.0
    assert metrics["valid_tool_call_rate"].value == 1.0


def test_data_check_finds_no_error_in_snips_mix(run: Run) -> None:
    done = run("data", "check", SNIPS, "--json")
    assert done.code == 0
    assert not [finding for finding in done.json["findings"] if finding["level"] == "error"]
