"""One side of benchmarks/training.py, in a process of its own; benchmarks/training.py starts it.

    python benchmarks/training_side.py {ours,mlx_lm,trl} FOLDER

A side prints a JSON object whenever it has done something, and waits for a line before it goes on: so two sides take
their steps in turn, and none runs while the other is measured. Whatever libraries print goes to stderr.
"""

import json
import math
import os
import resource
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

TRAIN, VALID, BASE, LORA, ROWS, FIRST = "train.jsonl", "valid.jsonl", "base", "lora.json", "rows.json", "first.npz"
SOME_WORDS = "green river seven stone light paper window garden market winter yellow simple quiet under over north"

STOP = "stop\n"


class Enough(Exception):
    """The benchmark has seen enough steps."""


class Channel:
    """Says what was done and waits for leave to go on."""

    def __init__(self) -> None:
        self.out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self.since = self.cpu_since = 0.0
        self.word = ""

    def tell(self, **found: Any) -> None:
        """Report."""
        print(json.dumps(found), file=self.out, flush=True)

    def say(self, **found: Any) -> None:
        """Report and wait. Raises `Enough` when told to stop; ends this process when there is no other end."""
        self.tell(**found)
        answer = sys.stdin.readline()
        if not answer:
            sys.exit("the benchmark has gone")
        if answer == STOP:
            raise Enough
        self.word = answer.strip()
        self.since, self.cpu_since = time.perf_counter(), time.process_time()

    def step(self, loss: float, tokens: float, peak_memory_bytes: int | None) -> None:
        """Report a step that began when the last report was answered."""
        times = {"seconds": time.perf_counter() - self.since, "cpu_seconds": time.process_time() - self.cpu_since}
        peak = {"peak_memory_bytes": peak_memory_bytes, "peak_rss_bytes": peak_rss()}
        self.say(loss=loss, loss_tokens=tokens, **times, **peak)


def peak_rss() -> int:
    """The most memory that this process held at any time, in bytes."""
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found if sys.platform == "darwin" else found * 1024


def blas() -> dict[str, Any]:
    """Put mlx-router's BLAS in place, in this process, and measure whether products really go through it."""
    from mlx_router.runtime import measure_gflops, prepare

    found = prepare()
    # The best of some short tries: a busy machine slows most of them.
    gflops = max(measure_gflops(seconds=0.1) for _ in range(5))
    return {"device": found.device, "blas": found.blas.name, "gflops": gflops}


def use_threads(word: str) -> None:
    """Have the BLAS use as many threads as the benchmark said."""
    from mlx_router.blas import set_threads

    set_threads(int(word))


def ours(channel: Channel, folder: Path) -> None:
    """Make base and rows for all sides, train with mlx-router, then compare gradients with mlx-lm's loss."""
    import mlx.core as mx

    from mlx_router import preparing, training
    from mlx_router.batches import Plan
    from mlx_router.config import TrainConfig

    channel.say(imported=True)
    channel.say(**blas())
    task = json.loads((folder / "task.json").read_text(encoding="utf-8"))
    float_base(task["model"], folder / BASE)
    sizes = write_rows(folder, task)
    recipe = TrainConfig.model_validate(task["recipe"])
    (folder / LORA).write_text(json.dumps(as_mlx_lm(recipe)), encoding="utf-8")
    batches = peer_batches(folder, recipe.batch_size, task["trl"])
    rows = [row for batch in batches for row in batch]

    class InOrder(Plan):
        """The rows as the other side takes them."""

        def _compose(self, random: Any) -> Any:
            size = self.batch_size
            return [self.rows[start : start + size] for start in range(0, len(self.rows), size)]

    preparing.token_rows = lambda examples, *_, **__: rows[: len(examples)]
    preparing.Plan = InOrder
    if task["trl"]:
        write_for_trl(folder, rows, preparing.prepare_run(recipe, folder / "unused", print))
    channel.say(**sizes)

    before = 0

    def report(event: dict[str, Any]) -> None:
        nonlocal before
        if event["event"] == "note":
            print(event["message"], file=sys.stderr)
        if event["event"] == "start":
            before = mx.get_peak_memory()  # what loading and the self-check took
        if event["event"] == "progress":
            at = (event["update"] - 1) * recipe.batch_size * recipe.gradient_accumulation_steps
            batch = rows[at : at + recipe.batch_size * recipe.gradient_accumulation_steps]
            tokens = sum(row.answer_tokens for row in batch)
            channel.step(event["loss"], tokens, max(before, event["peak_memory_bytes"]))

    with suppress(Enough):
        training.train(recipe, report, overwrite=True)
    found = (
        {}
        if task["trl"]
        else gradient_difference(preparing.prepare_run(recipe, folder / "unused", print), task["compared"])
    )
    channel.tell(**found)


def float_base(name: str, folder: Path) -> None:
    """The base with its weights in the type that mlx-router computes in here; mlx-lm takes them as they are stored."""
    import mlx.core as mx
    from mlx.utils import tree_flatten

    from mlx_router.model import PATTERNS, load_base

    base = load_base(name)
    folder.mkdir()
    for pattern in PATTERNS:
        for file in base.folder.glob(pattern):
            if not file.name.startswith("model"):
                shutil.copyfile(file, folder / file.name)
    config = {**base.config, "torch_dtype": base.dtype}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    weights = dict(tree_flatten(base.network.parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})


def write_rows(folder: Path, task: dict[str, Any]) -> dict[str, float]:
    """Write a catalogue of the wanted length and rows with suffixes of the wanted length; return the real lengths."""
    from mlx_router.calls import ToolCall
    from mlx_router.catalogue import Catalogue, Tool
    from mlx_router.data import Example
    from mlx_router.model import load_tokenizer_only

    chat, rng, words = load_tokenizer_only(str(folder / BASE)), Random(1), SOME_WORDS.split()
    schema = {"properties": {"text": {"type": "string"}}}
    tools = [Tool("note", "Keep a note.", schema)]
    short = catalogue = Catalogue(tuple(tools))

    def example(said: list[str], catalogue: Catalogue) -> Example:
        return Example(" ".join(said), ToolCall(tool="note", arguments={"text": " ".join(said[-4:])}), catalogue)

    def prefix(catalogue: Catalogue) -> int:
        return len(chat.shared_prefix(example(words, catalogue).messages()[0]))

    def suffix(said: list[str]) -> int:
        row = example(said, short)
        return len(chat.row_tokens(row.messages(), row.answer).tokens) - short_prefix

    short_prefix = prefix(short)
    while prefix(catalogue) < task["catalogue_tokens"]:
        name = "_".join([*rng.sample(words, 2), str(len(tools))])
        tools.append(Tool(name, " ".join(rng.choices(words, k=6)) + ".", schema))
        catalogue = Catalogue(tuple(tools))
    catalogue.save(folder / "catalogue.json")
    lines, lengths = [], []
    for _ in range(task["rows"]):
        said = rng.choices(words, k=4)
        while (length := suffix(said)) < task["suffix_tokens"]:
            said = [rng.choice(words), *said]
        lengths.append(length)
        lines.append(json.dumps(example(said, catalogue).to_json("catalogue.json")) + "\n")
    (folder / TRAIN).write_text("".join(lines), encoding="utf-8")
    (folder / VALID).write_text("".join(lines[: task["recipe"]["batch_size"]]), encoding="utf-8")
    return {"catalogue_tokens": prefix(catalogue), "suffix_tokens": sum(lengths) / len(lengths)}


def as_mlx_lm(recipe: Any) -> dict[str, Any]:
    """The recipe's LoRA layers and optimizer as mlx-lm's configuration file has them."""
    from mlx_router.model import load_base, lora_keys

    keys = lora_keys(load_base(recipe.model).network, recipe.train_on)
    adamw = {
        "betas": [recipe.adam_beta1, recipe.adam_beta2],
        "eps": recipe.adam_epsilon,
        "weight_decay": recipe.weight_decay,
        "bias_correction": True,
    }
    lora = {"rank": recipe.rank, "scale": recipe.scale, "dropout": 0.0, "keys": keys}
    return {"lora_parameters": lora, "optimizer": "adamw", "optimizer_config": {"adamw": adamw}}


def peer_batches(folder: Path, batch_size: int, trl: bool) -> list[list[Any]]:
    """The batches that `mlx_lm.lora` will take, from its own loader and iterator, as rows of ours.

    They hold the tokens that it learns: after the answer the template's line break and, for mlx-lm, a pad token.
    """
    from types import SimpleNamespace

    import numpy as np
    from mlx_lm.tuner.datasets import CacheDataset, create_dataset
    from mlx_lm.tuner.trainer import iterate_batches

    from mlx_router.batches import TokenRow
    from mlx_router.model import load_tokenizer_only

    chat = load_tokenizer_only(str(folder / BASE))
    lines = (folder / TRAIN).read_text(encoding="utf-8").splitlines()
    made = [json.loads(line) for line in lines]
    dataset = CacheDataset(create_dataset(made, chat.tokenizer, SimpleNamespace(mask_prompt=True)))
    prefix = tuple(chat.shared_prefix(made[0]["messages"][0]))
    np.random.seed(0)  # as `mlx_lm.lora` does
    found = []
    for tokens, lengths in iterate_batches(dataset, batch_size, 2**16):
        rows = []
        for row, (offset, end) in zip(tokens.tolist(), lengths.tolist(), strict=True):
            assert tuple(row[: len(prefix)]) == prefix
            learnt = row[len(prefix) : end if trl else end + 1]
            rows.append(TokenRow(prefix, tuple(learnt), offset - len(prefix), f"row {len(found)}"))
        found.append(rows)
    return found


def write_for_trl(folder: Path, rows: list[Any], run: Any) -> None:
    """The rows as token ids, to compare with what TRL makes of their texts, and the first LoRA weights."""
    import numpy as np
    from mlx.utils import tree_flatten

    lines = (folder / TRAIN).read_text(encoding="utf-8").splitlines()
    texts = {}
    for line in lines:
        messages = json.loads(line)["messages"]
        text = run.model.chat.row_tokens(messages[:2], messages[2]["content"]).tokens
        texts[tuple(text)] = messages
    found = []
    for row in rows:
        tokens = row.prefix + row.suffix
        # Ours ends with the turn; the template's line break after it is what is left.
        messages = next(texts[tokens[:end]] for end in range(len(tokens), 0, -1) if tokens[:end] in texts)
        found.append({"messages": messages, "tokens": tokens, "answer": len(row.prefix) + row.offset})
    (folder / ROWS).write_text(json.dumps(found), encoding="utf-8")
    first = {name: np.array(value) for name, value in tree_flatten(run.model.network.trainable_parameters())}
    np.savez(folder / FIRST, **first)


def gradient_difference(run: Any, rows: int) -> dict[str, float]:
    """The largest difference of a gradient of the first batch from that of mlx-lm's default loss on whole rows."""
    import mlx.core as mx
    import mlx.nn as nn
    import numpy as np
    from mlx.utils import tree_flatten
    from mlx_lm.tuner.trainer import default_loss

    from mlx_router.batches import make_batch
    from mlx_router.loss import answer_loss, arrays

    network, compared = run.model.network, run.plan.rows[:rows]
    mx.random.seed(1)
    for name, value in tree_flatten(network.trainable_parameters()):
        if name.endswith("lora_b"):  # B starts at zero, where A has no gradient
            network.load_weights([(name, mx.random.normal(value.shape) * 0.01)], strict=False)
    batch = make_batch(compared)
    (loss, _), shared = nn.value_and_grad(network, answer_loss)(network, *arrays(batch, 1.0 / batch.answer_tokens))
    mx.eval(loss, shared)
    whole = make_batch([row.whole() for row in compared])
    # Its mask counts one position more than the row has; the rows here hold that token already.
    lengths = whole.lengths[:, :2] - np.array([0, 1], np.int32)
    given = mx.array(whole.suffix), mx.array(lengths)
    (expected, _), plain = nn.value_and_grad(network, default_loss)(network, *given)
    pairs = zip(tree_flatten(shared), tree_flatten(plain), strict=True)
    return {
        "max_gradient_difference": max(float(mx.abs(left - right).max()) for (_, left), (_, right) in pairs),
        "largest_gradient": max(float(mx.abs(value).max()) for _, value in tree_flatten(plain)),
        "loss_difference": abs(float(loss) - float(expected)),
    }


def mlx_lm(channel: Channel, folder: Path) -> None:
    """Run mlx-lm's own command, `mlx_lm.lora --train --mask-prompt`; only the reporting callback is ours."""
    from mlx_lm import lora
    from mlx_lm.tuner.callbacks import TrainingCallback

    channel.say(imported=True)
    channel.say(**blas())
    task = json.loads((folder / "task.json").read_text(encoding="utf-8"))

    class Steps(TrainingCallback):  # type: ignore[misc]
        trained = 0.0

        def __init__(self) -> None:
            use_threads(channel.word)

        def on_train_loss_report(self, info: dict[str, Any]) -> None:
            tokens = float(info["trained_tokens"]) - self.trained
            self.trained += tokens
            channel.step(float(info["train_loss"]), tokens, int(info["peak_memory"] * 1e9))
            use_threads(channel.word)

    lora.get_reporting_callbacks = lambda *_, **__: Steps()
    recipe = task["recipe"]
    flags = {
        "--model": folder / BASE, "--data": folder, "--batch-size": recipe["batch_size"], "--iters": task["steps"],
        "--num-layers": recipe["num_layers"], "--learning-rate": recipe["learning_rate"], "--steps-per-report": 1,
        "--steps-per-eval": 2**30, "--val-batches": 0, "--save-every": 2**30, "--max-seq-length": 2**16,
        "--adapter-path": folder / "theirs", "--config": folder / LORA,
    }  # fmt: skip
    sys.argv = ["mlx_lm.lora", "--train", "--mask-prompt", *(str(part) for pair in flags.items() for part in pair)]
    with suppress(Enough):
        lora.main()


def trl(channel: Channel, folder: Path) -> None:
    """Train with TRL's SFTTrainer and PEFT on torch's CPU: the same recipe, rows, order and first weights."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    channel.say(imported=True)
    channel.say(device="cpu", blas="torch", gflops=torch_gflops())
    task = json.loads((folder / "task.json").read_text(encoding="utf-8"))
    recipe, rows = task["recipe"], json.loads((folder / ROWS).read_text(encoding="utf-8"))
    accumulation = recipe["gradient_accumulation_steps"]
    texts = [{"prompt": row["messages"][:2], "completion": row["messages"][2:]} for row in rows]
    arguments = SFTConfig(
        output_dir=str(folder / "theirs"),
        model_init_kwargs={"dtype": "float32"},
        per_device_train_batch_size=recipe["batch_size"],
        gradient_accumulation_steps=accumulation,
        max_steps=task["steps"],
        learning_rate=recipe["learning_rate"],
        lr_scheduler_type=recipe["lr_schedule"],
        warmup_steps=math.ceil(recipe["warmup_ratio"] * task["steps"]),
        max_grad_norm=recipe["max_grad_norm"],
        optim="adamw_torch",
        completion_only_loss=True,
        max_length=None,
        shuffle_dataset=False,
        train_sampling_strategy="sequential",
        gradient_checkpointing=False,  # TRL's own default saves memory and takes a third longer
        bf16=False,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )

    class Summed(SFTTrainer):  # type: ignore[misc]
        """Keeps the loss of an update, which the log would round."""

        summed = 0.0

        def training_step(self, *given: Any, **options: Any) -> Any:
            loss = super().training_step(*given, **options)
            self.summed += float(loss)
            return loss

    class Steps(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, arguments: Any, state: Any, control: Any, **_: Any) -> None:
            size = recipe["batch_size"] * accumulation
            done = rows[(state.global_step - 1) * size : state.global_step * size]
            loss, trainer.summed = trainer.summed, 0.0
            channel.step(loss, sum(len(row["tokens"]) - row["answer"] for row in done), None)

    lora = LoraConfig(
        r=recipe["rank"], lora_alpha=recipe["lora_alpha"], lora_dropout=0.0, target_modules=recipe["train_on"],
        task_type="CAUSAL_LM",
    )  # fmt: skip
    trainer = Summed(
        str(folder / BASE),
        args=arguments,
        train_dataset=Dataset.from_list(texts),
        peft_config=lora,
        callbacks=[Steps()],
    )
    for at, row in enumerate(rows):
        if list(trainer.train_dataset[at]["input_ids"]) != row["tokens"]:
            sys.exit(f"TRL makes other tokens of row {at} than mlx-router")
    start_as_ours(trainer.model, folder)
    with suppress(Enough):
        trainer.train()


def torch_gflops(size: int = 1024, seconds: float = 0.5) -> float:
    """The speed of torch's f32 matrix products, in GFLOP/s."""
    import torch

    a, b = torch.randn(size, size), torch.randn(size, size)
    a @ b
    products, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        a @ b
        products += 1
    return 2.0 * size**3 * products / elapsed / 1e9


def start_as_ours(network: Any, folder: Path) -> None:
    """Give PEFT's layers the first weights of ours; torch holds its matrices the other way round."""
    import numpy as np
    import torch

    layers = dict(network.named_parameters())
    first = np.load(folder / FIRST)
    for name in first.files:
        layer, _, kind = name.rpartition(".lora_")
        weight = layers.pop(f"base_model.model.{layer}.lora_{kind.upper()}.default.weight")
        weight.data.copy_(torch.from_numpy(first[name].T))
    left = [name for name, value in layers.items() if value.requires_grad]
    if left:
        sys.exit(f"TRL trains what mlx-router does not: {left}")


SIDES = {"ours": ours, "mlx_lm": mlx_lm, "trl": trl}

if __name__ == "__main__":
    SIDES[sys.argv[1]](Channel(), Path(sys.argv[2]))
