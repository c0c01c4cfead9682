"""Routing against mlx-lm's own functions: same machine, same weights, same prompts, in one run.

    python benchmarks/routing.py                       # both models, about twenty minutes on two idle cores
    python benchmarks/routing.py --only tiny           # the example adapters on the embedded base
    python benchmarks/routing.py --only qwen --requests 4
    python benchmarks/routing.py --quick --json        # a small random model instead of the large one

For each request the contestants take turns: this router; the same without drafts, which is plain greedy decoding;
`mlx_lm.generate`, the Python function, the model loaded; the same with a prompt cache of the catalogue, copied for each
call. All of them run on the same weights in memory, on the same BLAS. Where `llama-cpp-python` and `gguf` are installed
(`pip install gguf llama-cpp-python`, some minutes of compiling), llama.cpp takes part with the same weights as float32
GGUF, its prompt cache, and its grammar of the catalogue; without them `vs_llama_cpp` is null. The router is timed with
all that its caller waits for, the others without this package's parsing.

`tiny`: the embedded base with the example adapters, on their own test rows and with their own answers. `qwen3_0.6b`: a
randomly initialised model of Qwen3-0.6B's shape, with the embedded base's tokenizer in place of Qwen's (the head has
Qwen's 151,936 rows all the same). Catalogues of 3, 20 and 100 tools and one of about 800 tokens: for both models the
answers are set to the gold (benchmarks/scripted.py), the same in every catalogue, so that only the catalogue differs.
"""

import argparse
import json
import logging
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from mlx_router.bench import (
    FRESH_REQUESTS,
    GENERATE,
    PLAIN,
    ROUTER,
    batch_figures,
    batches,
    compare,
    contestants,
    fresh_figures,
    greedy,
    lanes,
    limit_of,
    machine_figures,
    render_batch,
    render_comparison,
    render_fresh,
    render_limit,
)
from mlx_router.blas import set_threads
from mlx_router.catalogue import Catalogue
from mlx_router.data import Example, read
from mlx_router.decoder import GreedyDecoder
from mlx_router.drafts import Drafter
from mlx_router.fresh import report as report_fresh
from mlx_router.fresh import run_fresh
from mlx_router.interop import load_catalogue
from mlx_router.limits import attention_seconds, interpolate, memory_bandwidth, pass_seconds
from mlx_router.machine import usable_cpus
from mlx_router.model import TINY, Model, load_base
from mlx_router.peers import MlxLmDecoder, load_with_mlx_lm
from mlx_router.prefixes import PrefixFiles
from mlx_router.prompts import RowTokens, system_message
from mlx_router.races import Call, Lane, race, summarize
from mlx_router.router import Router
from mlx_router.signature import parse_signatures
from mlx_router.tuning import Known, replay, tune

import llama_race  # isort: skip
from scripted import Scripted  # isort: skip
import mlx.core as mx  # isort: skip
from mlx.utils import tree_flatten  # isort: skip
from mlx_lm.models import qwen3  # isort: skip

ROOT = Path(__file__).resolve().parent.parent
OWN = [(str(ROOT / "adapters" / name), str(ROOT / "data" / name / "test.jsonl")) for name in ("support", "desktop")]
TOOL_COUNTS = (3, 20, 100)
LONG_TOKENS = 800
MAX_TOKENS = 128
LONG = f"about {LONG_TOKENS} tokens"
# The shape of Qwen/Qwen3-0.6B, from its config.json.
QWEN = {
    "model_type": "qwen3",
    "hidden_size": 1024,
    "num_hidden_layers": 28,
    "intermediate_size": 3072,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "rms_norm_eps": 1e-6,
    "vocab_size": 151936,
    "rope_theta": 1_000_000.0,
    "max_position_embeddings": 40960,
    "tie_word_embeddings": True,
}
SMALL = QWEN | {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 8192,
}
NOUNS = (
    *("invoice", "contract", "shipment", "warehouse", "employee", "vacancy", "lease", "vehicle", "patient"),
    *("prescription", "course", "lecture", "exhibit", "booking", "voucher", "survey", "campaign"),
)
OPERATIONS = (
    '- list_{0}s(status?: "open"|"closed"|"all", limit?: int): list {0}s.',
    "- get_{0}({0}_id: str): show one {0}.",
    "- create_{0}(title: str, owner?: str): make a new {0}.",
    "- update_{0}({0}_id: str, note: str): add a note to a {0}.",
    "- archive_{0}({0}_id: str): put a {0} into the archive.",
)
# What is wanted of a figure, and whether it is a least or a most.
WANTED: dict[str, tuple[str, float]] = {
    "passes_per_call_median": ("at most", 6),
    "speedup_vs_mlx_lm_generate": ("at least", 6),
    "first_token_speedup_vs_mlx_lm_generate": ("at least", 15),
    "speedup_vs_mlx_lm_prompt_cache": ("at least", 2),
    "p50_over_attention_alone": ("at most", 1.2),
    "batch_speedup": ("at least", 8),
    "differences_from_plain_greedy": ("at most", 0),
}

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Scene:
    """A catalogue, and the rows to answer with it in tokens of the model."""

    name: str
    catalogue: Catalogue
    prefix_tokens: int
    rows: list[RowTokens]

    @property
    def figures(self) -> dict[str, Any]:
        return {"tools": len(self.catalogue), "prefix_tokens": self.prefix_tokens}


def all_tools() -> Catalogue:
    """A hundred tools: support's, desktop's, and the operations of a business application."""
    found = [load_catalogue(ROOT / "data" / name / "catalogue.json") for name in ("support", "desktop")]
    more = parse_signatures("\n".join(line.format(noun) for noun in NOUNS for line in OPERATIONS))
    assert more is not None
    tools = {tool.name: tool for catalogue in (*found, more) for tool in catalogue}
    return Catalogue(tuple(tools.values()), found[0].instructions)


def scene(name: str, tools: int, model: Model, examples: Sequence[Example]) -> Scene:
    """The first `tools` of all tools, and the examples against them."""
    whole = all_tools()
    catalogue = Catalogue(tuple(whole)[:tools], whole.instructions)
    size = prefix_tokens(model, catalogue)
    moved = [replace(example, catalogue=catalogue, system=None) for example in examples]
    shown = [example.as_shown() for example in moved]
    return Scene(name, catalogue, size, [model.chat.row_tokens(one.messages(), one.answer) for one in shown])


def scenes(model: Model, examples: Sequence[Example], progress: Progress) -> list[Scene]:
    """3, 20 and 100 tools, and as many as come nearest to 800 tokens; those that do not fit the model are left out."""
    whole = all_tools()
    sizes = {count: prefix_tokens(model, Catalogue(tuple(whole)[:count])) for count in range(3, 101)}
    long = min(sizes, key=lambda count: abs(sizes[count] - LONG_TOKENS))
    found = [scene(f"{count} tools", count, model, examples) for count in TOOL_COUNTS]
    found.append(scene(LONG, long, model, examples))
    limit = model.context_length
    fit = [one for one in found if limit is None or max(len(row.tokens) for row in one.rows) + MAX_TOKENS <= limit]
    for one in found:
        left_out = "" if one in fit else ": left out, since the model has no room for it"
        progress(f"{one.name}: {len(one.catalogue)} tools, {one.prefix_tokens} tokens{left_out}")
    return fit


def prefix_tokens(model: Model, catalogue: Catalogue) -> int:
    """How many tokens all prompts of a catalogue begin with."""
    return len(model.chat.shared_prefix({"role": "system", "content": system_message(catalogue)}))


def spread(rows: Sequence[Example], count: int) -> list[Example]:
    """So many rows, from all over the file."""
    return [rows[at * len(rows) // count] for at in range(min(count, len(rows)))]


def spread_to(rows: Sequence[Example], count: int, batch: int) -> list[Example]:
    """`spread`, and behind these other rows up to a batch."""
    first = spread(rows, count)
    known = {row.where for row in first}
    return [*first, *(row for row in spread(rows, batch) if row.where not in known)][: max(count, batch)]


def random_model(folder: Path, shape: dict[str, Any], seed: int = 0) -> Path:
    """Write a random model in float32 with the embedded base's tokenizer. No file is fetched."""
    folder.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(TINY / name, folder / name)
    base = json.loads((TINY / "config.json").read_text(encoding="utf-8"))
    config = shape | {"eos_token_id": base["eos_token_id"]}
    mx.random.seed(seed)
    network = qwen3.Model(qwen3.ModelArgs.from_dict(config))
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(network.parameters())), {"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def scripted_model(model: Model) -> Model:
    """The same weights with answers that can be set."""
    return replace(model, network=Scripted(model.network))


def tuned_length(
    model: Model, one: Scene, examples: Sequence[Example], progress: Progress
) -> tuple[int, dict[str, Any]]:
    """The best draft length for the gold answers of a scene."""
    decoder = GreedyDecoder(model)
    known = [
        Known(
            row.prompt_length - one.prefix_tokens,
            tuple(row.tokens[row.prompt_length :]),
            Drafter(one.catalogue, example.request).continuation,
        )
        for row, example in zip(one.rows, examples, strict=True)
    ]
    prefix = decoder.prefixes.get([{"role": "system", "content": system_message(one.catalogue)}])
    found = tune(decoder, known, pass_seconds(model, prefix), MAX_TOKENS)
    progress(f"drafts of {found.draft_length} tokens are best here (default {found.default})")
    return found.draft_length, asdict(found)


def follow_lane(lane: Lane, one: Scene, model: Model, limit: int | None, warm: bool) -> Lane:
    """The lane with its answers set to the scene's."""

    def call(number: int) -> Call:
        model.network.script.follow(one.rows[number])
        return lane.call(number)

    return replace(lane, call=call, limit=limit, warm=warm)


def scripted_lanes(
    model: Model, found: Sequence[Scene], requests: Sequence[str], routers: dict[str, Router], large: bool
) -> list[Lane]:
    """All contestants in all scenes; with a large model those that take long run less often in the largest ones."""
    made = []
    for one in found:
        for lane in lanes(one.name, routers, requests, one.catalogue):
            long = large and len(one.catalogue) == max(TOOL_COUNTS)
            if large and lane.contestant == PLAIN and len(one.catalogue) in TOOL_COUNTS[1:]:
                continue
            limit = 2 if long and lane.contestant == GENERATE else None
            warm = lane.contestant != GENERATE or one is found[0]
            made.append(follow_lane(lane, one, model, limit, warm))
    return made


def llama_lanes(
    peer: llama_race.Peer | None, found: Sequence[Scene], router: Router, requests: Sequence[str], large: bool
) -> list[Lane]:
    """llama.cpp in all scenes, if it is there; with a large model in one way only."""
    if peer is None:
        return []
    names = [llama_race.LLAMA] if large else list(llama_race.ENDS)
    return [
        lane for one in found for lane in peer.lanes(one.name, router, requests, one.catalogue, one.rows, names=names)
    ]


def scaling(
    model: Model, small: Scene, big: Scene, requests: Sequence[str], length: int, p50: dict[str, float]
) -> dict[str, Any]:
    """p50 with 100 tools against 3, beside what attention to the longer catalogue costs by itself."""
    figures: dict[str, Any] = {"tools": [len(one.catalogue) for one in (small, big)]}
    figures["prefix_tokens"] = [small.prefix_tokens, big.prefix_tokens]
    figures["p50_ms"] = [p50[small.name], p50[big.name]]
    config = model.config
    kept = config["num_hidden_layers"] * config["num_key_value_heads"] * config["head_dim"] * 2 * 4
    figures["keys_and_values_bytes"] = [kept * one.prefix_tokens for one in (small, big)]
    attention = []
    for one in (small, big):
        table = attention_seconds(model, one.prefix_tokens)
        assert table is not None
        per_call = []
        for row, request in zip(one.rows, requests, strict=True):
            # The small catalogue's passes for both: what more passes cost is not attention's.
            answer = row.tokens[row.prompt_length :]
            guesses = replay(
                model.chat, answer, Drafter(small.catalogue, request).continuation, length, MAX_TOKENS
            ).guesses
            first = row.prompt_length - one.prefix_tokens
            sizes = [first + guesses[0], *(1 + guess for guess in guesses[1:])]
            per_call.append(1e3 * sum(interpolate(table, size) for size in sizes))
        attention.append(sum(per_call) / len(per_call))
    figures["attention_ms"] = attention
    ratio = p50[big.name] / p50[small.name]
    alone = (p50[small.name] + max(0.0, attention[1] - attention[0])) / p50[small.name]
    return {**figures, "p50_ratio": ratio, "attention_alone_ratio": alone, "over_attention_alone": ratio / alone}


def measure_scripted(
    model: Model, rows: Sequence[Example], count: int, bandwidth: float, progress: Progress, *, large: bool
) -> dict[str, Any]:
    """Catalogues of several sizes, the answers set to the gold: the first `count` rows one by one, all in a batch."""
    examples = rows[:count]
    real, model = model, scripted_model(model)
    found = scenes(model, examples, progress)
    requests = [example.request for example in examples]
    by_name = {one.name: one for one in found}
    long = by_name[LONG]
    length, tuning = tuned_length(model, long, examples, progress)
    router = Router(GreedyDecoder(model, draft_length=length), found[0].catalogue, max_tokens=MAX_TOKENS)
    routers = contestants(router)
    made = scripted_lanes(model, found, requests, routers, large)
    with llama_race.peer_of(real, progress, tries=1 if large else 3) as peer:
        made += llama_lanes(peer, found, router, requests, large)
        calls = race(made, len(requests), progress=progress)
        beside_llama = peer and peer.figures
    figures = {one.name: one.figures | compare(calls, one.name) | llama_race.figures(calls, one.name) for one in found}
    for one in found:
        said = figures[one.name]
        said["limit"] = limit_of(model, said["passes_per_call_median"], bandwidth)
        expected = [example.answer for example in examples]
        wrong = sum(call.output != answer for call, answer in zip(calls[one.name, ROUTER], expected, strict=False))
        assert not wrong, f"{wrong} answers are not those of the script"
    p50 = {one.name: summarize(calls[one.name, ROUTER]).p50_ms for one in found}
    small, big = (by_name.get(f"{count} tools") for count in (min(TOOL_COUNTS), max(TOOL_COUNTS)))
    progress("attention alone")
    beside = scaling(model, small, big, requests, length, p50) if small and big else None
    return {
        "draft_length": tuning,
        "llama_cpp": beside_llama,
        "scenes": figures,
        "scaling": beside,
        "batch": batch_scripted(model, long, rows, routers, calls, progress, large=large),
    }


def batch_scripted(
    model: Model,
    long: Scene,
    examples: Sequence[Example],
    routers: dict[str, Router],
    calls: Any,
    progress: Progress,
    *,
    large: bool,
) -> dict[str, Any]:
    """Batches of a scene. mlx-lm's says as many tokens as the gold has, whatever they are."""
    one = scene(long.name, len(long.catalogue), model, examples)
    requests = [example.request for example in examples]
    peer = MlxLmDecoder(model.network.network, model.chat, prompt_cache=True)
    messages = [routers[ROUTER].prompt(request, catalogue=one.catalogue).messages for request in requests]
    lengths = [len(row.tokens) - row.prompt_length for row in one.rows]

    def ours() -> list[str]:
        model.network.script.look_up(one.rows)
        return [decision.raw for decision in routers[ROUTER].route_many(requests, catalogue=one.catalogue)]

    peer.answer_batch(messages[:1], lengths[:1])  # makes its prompt cache
    alone = {name: calls[one.name, name] for name in (ROUTER, GENERATE)}
    return batch_figures(ours, partial(peer.answer_batch, messages, lengths), alone, progress, rounds=1 if large else 3)


def measure_own(
    own: Sequence[tuple[str, str]], count: int, batch: int, length: int | None, bandwidth: float, progress: Progress
) -> dict[str, Any]:
    """Adapters on their own test rows, with their own answers."""
    figures: dict[str, Any] = {}
    for folder, data in own:
        router = Router.load(folder)
        if length is not None:
            greedy(router).draft_length = length
        in_batch = [example.request for example in spread_to(read(data, router.catalogue), count, batch)]
        requests = in_batch[:count]
        routers = contestants(router)
        name = Path(folder).name
        progress(f"{name}: {len(requests)} of its test rows")
        with llama_race.peer_of(greedy(router).model, progress) as peer:
            others = peer.lanes(name, router, requests) if peer else []
            calls = race([*lanes(name, routers, requests), *others], len(requests), progress=progress)
            beside_llama = peer and peer.figures
        result = compare(calls, name) | llama_race.figures(calls, name)
        alone = {who: calls[name, who] for who in (ROUTER, GENERATE)}
        figures[name] = {
            "tools": len(router.catalogue),
            "prefix_tokens": prefix_tokens(greedy(router).model, router.catalogue),
            **result,
            "llama_cpp": beside_llama,
            "limit": limit_of(greedy(router).model, result["passes_per_call_median"], bandwidth),
            "batch": batch_figures(*batches(routers, in_batch), alone, progress),
            "passes": [call.passes for call in calls[name, ROUTER]],
        }
    return figures


def tiny_section(
    own: Sequence[tuple[str, str]], count: int, batch: int, bandwidth: float, progress: Progress
) -> dict[str, Any]:
    """The embedded base: its adapters' own answers, then catalogues of several sizes."""
    rows = gold_rows(count, batch)
    set_threads(usable_cpus())
    model = greedy(Router.load(own[0][0])).model
    scripted = measure_scripted(model, rows, count, bandwidth, progress, large=False)
    found = measure_own(own, count, batch, scripted["draft_length"]["draft_length"], bandwidth, progress)
    passes = [one for figures in found.values() for one in figures["passes"]]
    return headline(
        {"own": found, **scripted},
        passes=statistics.median(passes),
        batch_speedup=min(figures["batch"]["batch_speedup"] for figures in found.values()),
    ) | {"fresh": fresh_figures(own[0][0], None, [row.request for row in rows[:count]], progress)}


def random_section(
    shape: dict[str, Any], count: int, batch: int, bandwidth: float, progress: Progress, *, large: bool
) -> dict[str, Any]:
    """A random model; passes on the test sets are counted by replaying their gold answers."""
    set_threads(usable_cpus())
    with tempfile.TemporaryDirectory() as folder:
        progress("making random weights")
        base = random_model(Path(folder) / "model", shape)
        model = load_base(str(base))
        rows = gold_rows(count, batch)
        scripted = measure_scripted(model, rows, count, bandwidth, progress, large=large)
        length = scripted["draft_length"]["draft_length"]
        passes = [one for _, data in OWN for one in replayed(model, data, length)]
        result = headline(scripted, passes=statistics.median(passes), batch_speedup=scripted["batch"]["batch_speedup"])
        del model
        return result | {"fresh": fresh_scripted(base, rows[:count], length, Path(folder), progress)}


def gold_rows(count: int, batch: int = 0) -> list[Example]:
    """Rows of support's test, whose tools stand in each of the catalogues, and more of them up to a batch."""
    return spread_to(read(OWN[0][1]), count, batch)


def replayed(model: Model, data: str, length: int) -> list[int]:
    """The passes of each row's gold answer."""
    found = []
    for example in (row.as_shown() for row in read(data)):
        row = model.chat.row_tokens(example.messages(), example.answer)
        draft = Drafter(example.catalogue, example.request).continuation
        found.append(replay(model.chat, row.tokens[row.prompt_length :], draft, length, MAX_TOKENS).passes)
    return found


def headline(found: dict[str, Any], *, passes: float, batch_speedup: float) -> dict[str, Any]:
    """The figures that count, first."""
    places = [*found["scenes"].values(), *found.get("own", {}).values()]
    long, beside = found["scenes"][LONG], found["scaling"]
    compared = [one["differences_from_plain_greedy"] for one in places]
    return {
        "passes_per_call_median": passes,
        **{
            key: long[key]
            for key in (
                *("speedup_vs_mlx_lm_generate", "first_token_speedup_vs_mlx_lm_generate"),
                *("speedup_vs_mlx_lm_prompt_cache", "first_token_speedup_vs_mlx_lm_prompt_cache"),
            )
        },
        "p50_ratio_100_to_3_tools": beside and beside["p50_ratio"],
        "p50_ratio_of_attention_alone": beside and beside["attention_alone_ratio"],
        "p50_over_attention_alone": beside and beside["over_attention_alone"],
        "batch_speedup": batch_speedup,
        "differences_from_plain_greedy": sum(one for one in compared if one is not None),
        "vs_llama_cpp": long["speedup_vs_llama_cpp"],
        **found,
    }


def fresh_scripted(
    base: Path, examples: Sequence[Example], length: int, folder: Path, progress: Progress
) -> dict[str, Any]:
    """Starts in fresh processes of the random model, in the catalogue of about 800 tokens."""
    whole = all_tools()
    model = load_base(str(base))
    one = next(found for found in scenes(model, examples[:FRESH_REQUESTS], lambda line: None) if found.name == LONG)
    del model
    given = {
        "base": str(base),
        "tools": len(one.catalogue),
        "requests": [example.request for example in examples[:FRESH_REQUESTS]],
        "rows": [[row.tokens, row.prompt_length] for row in one.rows],
        "draft_length": length,
    }
    assert len(whole) >= len(one.catalogue)
    found: dict[str, Any] = {}
    cache = str(folder / "cache")
    for name, extra in (
        (ROUTER, {"mlx_lm": False, "cache_dir": None}),
        ("", {"mlx_lm": False, "cache_dir": cache}),  # fills the cache
        (f"{ROUTER}, catalogue on disk", {"mlx_lm": False, "cache_dir": cache}),
        (GENERATE, {"mlx_lm": True, "cache_dir": None}),
    ):
        result = run_fresh([__file__, "--fresh-process"], given | extra)
        if name:
            found[name] = asdict(result)
            progress(f"fresh process: {name} answered after {result.cold_start_ms:.0f} ms")
    return found


def fresh_process() -> None:
    """What a fresh process runs; stdin says what."""
    given = json.loads(sys.stdin.read())
    networks = []

    def open_router() -> Router:
        whole = all_tools()
        catalogue = Catalogue(tuple(whole)[: given["tools"]], whole.instructions)
        if given["mlx_lm"]:
            network, chat = load_with_mlx_lm(given["base"], None)
            networks.append(Scripted(network))
            return Router(MlxLmDecoder(networks[0], chat), catalogue, max_tokens=MAX_TOKENS)
        model = scripted_model(load_base(given["base"]))
        networks.append(model.network)
        files = PrefixFiles(Path(given["cache_dir"])) if given["cache_dir"] else None
        return Router(
            GreedyDecoder(model, draft_length=given["draft_length"], files=files), catalogue, max_tokens=MAX_TOKENS
        )

    rows = [RowTokens(*row) for row in given["rows"]]
    report_fresh(
        given["started"], open_router, given["requests"], lambda number: networks[0].script.follow(rows[number])
    )


def render(result: dict[str, Any]) -> str:
    """All figures as text."""
    parts = [f"{name}: {value}" for name, value in result["machine"].items()]
    lines = ["\n".join([*parts, f"memory: {result['memory_bandwidth_gb_per_s']:.1f} GB/s read"])]
    for name in ("tiny", "qwen3_0.6b", "qwen3_small"):
        if name in result:
            lines += [f"== {name}", *_section(result[name])]
    return "\n\n".join(lines)


def _section(found: dict[str, Any]) -> list[str]:
    lines = []
    for key, (bound, wanted) in WANTED.items():
        value = found[key]
        met = value is not None and (value <= wanted if bound == "at most" else value >= wanted)
        shown = "not measured" if value is None else f"{value:.2f}"
        lines.append(f"{key:42} {shown:>12}   wanted: {bound} {wanted:g}{'' if met else '   MISSED'}")
    parts = ["\n".join(lines)]
    for name, one in (*found["scenes"].items(), *found.get("own", {}).items()):
        parts.append(f"-- {name}: {one['tools']} tools, {one['prefix_tokens']} tokens\n{render_comparison(one)}")
        parts += filter(None, [llama_race.render(one)])
        parts.append(render_limit(one["limit"], one["contestants"][ROUTER]["p50_ms"]))
        if "batch" in one:
            parts.append(render_batch(one["batch"]))
    if "batch" in found:
        parts.append(f"{LONG}, {render_batch(found['batch'])}")
    if found["scaling"]:
        parts.append(_scaling(found["scaling"]))
    return [*parts, render_fresh(found["fresh"])]


def _scaling(one: dict[str, Any]) -> str:
    (small, big), (few, many) = one["p50_ms"], one["tools"]
    short, long = one["prefix_tokens"]
    kept, more = (size / 1e6 for size in one["keys_and_values_bytes"])
    before, after = one["attention_ms"]
    return (
        f"{many} tools against {few}: {long} tokens against {short}, "
        f"{more:.1f} MB of keys and values against {kept:.1f}\n"
        f"  p50 {big:.1f} ms / {small:.1f} ms = {one['p50_ratio']:.2f}\n"
        f"  attention alone, measured: {after:.1f} ms a call against {before:.1f} ms, so that it would be "
        f"({small:.1f} + {max(0.0, after - before):.1f}) / {small:.1f} = {one['attention_alone_ratio']:.2f}\n"
        f"  over what attention alone costs: {one['over_attention_alone']:.2f}"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["tiny", "qwen"], help="one of the two models")
    parser.add_argument("--requests", type=int, help="how many requests (default: 30 for tiny, 6 for qwen)")
    parser.add_argument("--batch", type=int, help="how many in batches (default: 32 for tiny, 8 for qwen)")
    parser.add_argument("--own", nargs=2, action="append", metavar=("ADAPTER", "ROWS"), help="instead of the examples")
    parser.add_argument("--quick", action="store_true", help="4 requests, a small random model instead of Qwen3-0.6B")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--fresh-process", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    logging.getLogger("mlx_router").addHandler(logging.NullHandler())
    if options.fresh_process:
        fresh_process()
        return
    start = time.perf_counter()

    def progress(line: str) -> None:
        print(f"[{time.perf_counter() - start:6.1f} s] {line}", file=sys.stderr, flush=True)

    warnings.filterwarnings("ignore", "this catalogue has")
    bandwidth = memory_bandwidth()
    result: dict[str, Any] = {"machine": machine_figures(), "memory_bandwidth_gb_per_s": bandwidth / 1e9}
    if options.only != "qwen":
        count = options.requests or (4 if options.quick else 30)
        batch = options.batch or (4 if options.quick else 32)
        result["tiny"] = tiny_section(options.own or OWN, count, batch, bandwidth, progress)
    if options.only != "tiny":
        count = options.requests or (4 if options.quick else 6)
        name, shape = ("qwen3_small", SMALL) if options.quick else ("qwen3_0.6b", QWEN)
        batch = options.batch or (4 if options.quick else 8)
        result[name] = random_section(shape, count, batch, bandwidth, progress, large=not options.quick)
    print(json.dumps(result, indent=2) if options.json else render(result))


if __name__ == "__main__":
    main()
