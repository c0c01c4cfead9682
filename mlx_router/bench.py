"""What routing takes on this machine: the router against mlx-lm's own functions, with the same weights and prompts."""

import copy
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

from . import runtime
from .calls import Decoder, Generation
from .catalogue import Catalogue
from .decoder import GreedyDecoder
from .draft_lengths import remember
from .errors import RequestError, UsageError
from .fresh import PROGRAM, run_fresh
from .limits import memory_bandwidth, pass_seconds, timed, weight_bytes
from .model import BACKEND, Model
from .peers import MlxLmDecoder
from .races import Call, Lane, Name, differences, first_token_speedup, race, speedup, summarize
from .router import Router
from .tables import table
from .tuning import Known, Tuning, tune

ROUTER = "mlx-router"
PLAIN = "mlx-router without drafts"
GENERATE = "mlx_lm.generate"
CACHED = "mlx_lm.generate, prompt cache"
CONTESTANTS = (ROUTER, PLAIN, GENERATE, CACHED)

TUNED_WITH = 8
BATCH_ROUNDS = 3
LEAST_BATCH = 16
FRESH_REQUESTS = 3

Report: TypeAlias = Callable[[str], None]


def beside(router: Router, decoder: Decoder) -> Router:
    """The same router with another decoder: same prompts, same parser."""
    other = copy.copy(router)
    other.decoder = decoder
    if isinstance(decoder, MlxLmDecoder):
        # It gives no scores to judge its calls by.
        other.certainty = None
    return other


def contestants(router: Router) -> dict[str, Router]:
    """The router, and others on its weights: without drafts, and mlx-lm's function with and without a prompt cache."""
    decoder = greedy(router)
    plain = GreedyDecoder(decoder.model, draft_length=0)
    plain.prefixes = decoder.prefixes
    network, chat = decoder.model.network, decoder.model.chat
    return {
        ROUTER: router,
        PLAIN: beside(router, plain),
        GENERATE: beside(router, MlxLmDecoder(network, chat)),
        CACHED: beside(router, MlxLmDecoder(network, chat, prompt_cache=True)),
    }


def greedy(router: Router) -> GreedyDecoder:
    """The router's decoder, which has to be the one that drafts."""
    assert isinstance(router.decoder, GreedyDecoder)
    return router.decoder


def ask(router: Router, request: str, catalogue: Catalogue | None = None) -> Call:
    """One timed answer. The router is timed as its caller sees it; a peer without this package's parsing."""
    start = time.perf_counter()
    decision = router.route(request, catalogue=catalogue)
    total_ms = (time.perf_counter() - start) * 1e3
    timings = decision.timings
    assert timings is not None
    around = 0.0 if isinstance(router.decoder, MlxLmDecoder) else total_ms - timings.total_ms
    return Call.of(Generation(decision.raw, timings=timings), around)


def lanes(
    scene: str, routers: Mapping[str, Router], requests: Sequence[str], catalogue: Catalogue | None = None
) -> list[Lane]:
    """A lane for each contestant."""
    return [
        Lane(scene, name, lambda number, router=router: ask(router, requests[number], catalogue))  # type: ignore[misc]
        for name, router in routers.items()
    ]


def compare(found: Mapping[Name, Sequence[Call]], scene: str) -> dict[str, Any]:
    """A scene's figures; those of a contestant that did not take part are None."""
    calls = {name: list(lane) for (place, name), lane in found.items() if place == scene and lane}
    router = calls[ROUTER]

    def against(name: str, figure: Callable[[Sequence[Call], Sequence[Call]], float]) -> float | None:
        return figure(calls[name], router) if name in calls else None

    return {
        "passes_per_call_median": summarize(router).passes_median,
        "passes_per_call_median_plain": summarize(calls[PLAIN]).passes_median if PLAIN in calls else None,
        "speedup_vs_mlx_lm_generate": against(GENERATE, speedup),
        "first_token_speedup_vs_mlx_lm_generate": against(GENERATE, first_token_speedup),
        "speedup_vs_mlx_lm_prompt_cache": against(CACHED, speedup),
        "first_token_speedup_vs_mlx_lm_prompt_cache": against(CACHED, first_token_speedup),
        "speedup_vs_plain_greedy": against(PLAIN, speedup),
        "differences_from_plain_greedy": against(PLAIN, differences),
        "differences_from_mlx_lm_generate": against(GENERATE, differences),
        "contestants": {name: asdict(summarize(lane)) for name, lane in calls.items()},
    }


def tune_drafts(router: Router, requests: Sequence[str], report: Report) -> Tuning | None:
    """The draft length that is best for these requests here, now set in the router; None if no answer had an end."""
    decoder = greedy(router)
    chat = decoder.model.chat
    known, prompts = [], [router.prompt(request) for request in requests[:TUNED_WITH]]
    for request, prompt in zip(requests, prompts, strict=False):
        decision = router.route(request)
        assert decision.timings is not None and prompt.draft is not None
        if decision.timings.output_tokens < router.max_tokens:
            suffix = decision.timings.prompt_tokens - decision.timings.cached_tokens
            answer = chat.tokenizer.encode(decision.raw, add_special_tokens=False)
            known.append(Known(suffix, (*answer, min(chat.eos_tokens)), prompt.draft))
    if not known:
        report("drafts are not tuned: no answer came to its end")
        return None
    prices = pass_seconds(decoder.model, decoder.prefixes.get(prompts[0].messages))
    found = tune(decoder, known, prices, router.max_tokens)
    decoder.draft_length = found.draft_length
    report(f"drafts of {found.draft_length} tokens are best here (default {found.default})")
    return found


def batch_figures(
    ours: Callable[[], Sequence[str]],
    theirs: Callable[[], object],
    alone: Mapping[str, Sequence[Call]],
    report: Report,
    rounds: int = BATCH_ROUNDS,
) -> dict[str, Any]:
    """Requests a second in batches, ours and `mlx_lm.batch_generate`'s in turn; `alone` are the calls one by one.

    `ours` returns the answers, those of the calls one by one first.
    """
    answers: Sequence[str] = ()
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        start = time.perf_counter()
        answers = ours()
        seconds[0].append(time.perf_counter() - start)
        seconds[1].append(timed(theirs))
    batched, peer = (len(answers) / statistics.median(found) for found in seconds)
    generate, one_by_one = rate_of(alone[GENERATE]), rate_of(alone[ROUTER])
    report(f"{len(answers)} requests in batches: {batched:.2f} a second, mlx_lm.batch_generate {peer:.2f}")
    return {
        "requests": len(answers),
        "requests_per_second": batched,
        "requests_per_second_one_by_one": one_by_one,
        "requests_per_second_mlx_lm_generate": generate,
        "requests_per_second_mlx_lm_batch_generate": peer,
        "batch_speedup": batched / generate,
        "batch_speedup_vs_mlx_lm_batch_generate": batched / peer,
        "differences_from_one_by_one": sum(
            one != call.output for one, call in zip(answers, alone[ROUTER], strict=False)
        ),
    }


def batches(
    routers: Mapping[str, Router], requests: Sequence[str]
) -> tuple[Callable[[], list[str]], Callable[[], object]]:
    """Two ways to answer all requests in batches: the router's and mlx-lm's, which goes on from prompt caches."""
    peer = routers[CACHED].decoder
    assert isinstance(peer, MlxLmDecoder)
    messages = [routers[CACHED].prompt(request).messages for request in requests]
    return (
        lambda: [decision.raw for decision in routers[ROUTER].route_many(requests)],
        lambda: peer.answer_batch(messages, routers[CACHED].max_tokens),
    )


def rate_of(calls: Sequence[Call]) -> float:
    """Requests a second, one by one."""
    return 1e3 * len(calls) / sum(call.total_ms for call in calls)


def limit_of(model: Model, passes: float, bandwidth: float) -> dict[str, Any]:
    """The least time of a call: each pass reads all weights once."""
    size = weight_bytes(model.network)
    return {
        "weight_bytes": size,
        "memory_bandwidth_gb_per_s": bandwidth / 1e9,
        "passes": passes,
        "limit_ms": 1e3 * passes * size / bandwidth,
    }


def fresh_figures(folder: str, base: str | None, requests: Sequence[str], report: Report) -> dict[str, Any]:
    """Starts in processes of their own: the router, the router with a catalogue kept on disk, and `mlx_lm.generate`."""
    found: dict[str, Any] = {}
    given = {"folder": folder, "base": base, "requests": list(requests[:FRESH_REQUESTS]), "mlx_lm": False}
    with tempfile.TemporaryDirectory() as cache:
        for name, extra in (
            (ROUTER, {"cache_dir": None}),
            ("", {"cache_dir": cache}),  # fills the cache
            (f"{ROUTER}, catalogue on disk", {"cache_dir": cache}),
            (GENERATE, {"cache_dir": None, "mlx_lm": True}),
        ):
            fresh = run_fresh(PROGRAM, given | extra)
            if name:
                found[name] = asdict(fresh)
                report(f"fresh process: {name} answered after {fresh.cold_start_ms:.0f} ms")
    return found


def machine_figures() -> dict[str, Any]:
    """Where this was measured."""
    here = runtime.inspect()
    return {
        "system": f"{here.machine.system} {here.machine.architecture}",
        "device": f"{BACKEND.device}: {BACKEND.device_name}",
        "cpus": here.machine.cpus,
        "blas": BACKEND.blas.name,
        "versions": {name: here.versions[name] for name in ("mlx", "mlx-lm") if name in here.versions},
    }


def bench_folder(
    folder: str | Path,
    requests: Sequence[str],
    *,
    base: str | None = None,
    catalogue: Catalogue | None = None,
    seconds: float,
    keep: bool = True,
    fresh: bool = True,
    report: Report,
) -> dict[str, Any]:
    """Tune drafting, then time the router of a folder against mlx-lm over these requests, within about `seconds`.

    With `keep` the draft length is remembered. Raises `UsageError` where there are fewer than three requests that fit.
    """
    router = Router.load(folder, base=base, catalogue=catalogue)
    decoder = greedy(router)
    requests = _fitting(router, requests)
    bandwidth = memory_bandwidth()
    tuning = tune_drafts(router, requests, report)
    kept = str(remember(decoder.model, tuning.draft_length)) if keep and tuning is not None else None
    routers = contestants(router)
    found = race(lanes("own", routers, requests), len(requests), seconds=0.6 * seconds, progress=report)
    result = compare(found, "own")
    alone = {name: found["own", name] for name in CONTESTANTS}
    some = (list(requests) * LEAST_BATCH)[: max(LEAST_BATCH, len(alone[ROUTER]))]
    batch = batch_figures(*batches(routers, some), alone, report, rounds=BATCH_ROUNDS if seconds >= 30 else 1)
    return {
        "machine": machine_figures(),
        "model": {"name": decoder.model.name, "dtype": decoder.model.dtype},
        "catalogue": {
            "tools": len(router.catalogue),
            "prefix_tokens": len(decoder.prefixes.get(router.prompt(requests[0]).messages).tokens),
        },
        **result,
        "batch_speedup": batch["batch_speedup"],
        "draft_length": None if tuning is None else {**asdict(tuning), "remembered_in": kept},
        "limit": limit_of(decoder.model, result["passes_per_call_median"], bandwidth),
        "batch": batch,
        "fresh": fresh_figures(str(folder), base, requests, report) if fresh else None,
    }


def _fitting(router: Router, requests: Sequence[str]) -> list[str]:
    """The requests that the model has room for, each once."""
    found = []
    for request in dict.fromkeys(requests):
        try:
            greedy(router).check(router.prompt(request), router.max_tokens)
        except RequestError:
            continue
        found.append(request)
    if len(found) < 3:
        raise UsageError(
            f"{len(found)} of {len(requests)} requests fit this model; three are the least to measure with",
            hint="give other rows with --data",
        )
    return found


def render(result: Mapping[str, Any]) -> str:
    """The figures of `bench_folder` as text."""
    parts = [render_comparison(result), *_drafts(result["draft_length"])]
    parts.append(render_limit(result["limit"], result["contestants"][ROUTER]["p50_ms"]))
    parts.append(render_batch(result["batch"]))
    if result["fresh"]:
        parts.append(render_fresh(result["fresh"]))
    return "\n\n".join(parts)


def render_comparison(scene: Mapping[str, Any]) -> str:
    """A scene's contestants, and how they compare."""
    return f"{_contestants(scene['contestants'])}\n\n{_ratios(scene)}"


def _contestants(found: Mapping[str, Mapping[str, float]]) -> str:
    rows: list[tuple[str, ...]] = [("", "calls", "p50 ms", "p95 ms", "first token ms", "passes")]
    rows += [
        (
            name,
            str(one["calls"]),
            *(f"{one[key]:.1f}" for key in ("p50_ms", "p95_ms", "first_token_p50_ms")),
            f"{one['passes_median']:g}",
        )
        for name, one in found.items()
    ]
    return table(rows, left=[0])


def _ratios(result: Mapping[str, Any]) -> str:
    lines = [
        f"a call: {times(result['speedup_vs_mlx_lm_generate'])} mlx_lm.generate, "
        f"{times(result['speedup_vs_mlx_lm_prompt_cache'])} mlx_lm.generate with its prompt cache",
        f"the first token: {times(result['first_token_speedup_vs_mlx_lm_generate'])} mlx_lm.generate, "
        f"{times(result['first_token_speedup_vs_mlx_lm_prompt_cache'])} mlx_lm.generate with its prompt cache",
        f"answers that differ: from plain greedy decoding {shown(result['differences_from_plain_greedy'])}, from "
        f"mlx_lm.generate {shown(result['differences_from_mlx_lm_generate'])}",
    ]
    return "\n".join(lines)


def times(ratio: float | None) -> str:
    """A ratio in words."""
    if ratio is None:
        return "not measured against"
    return f"{ratio:.1f} times as fast as" if ratio >= 1 else f"{1 / ratio:.1f} times SLOWER than"


def shown(count: float | None) -> str:
    """A count; "–" where it was not measured."""
    return "–" if count is None else f"{count:g}"


def _drafts(found: Mapping[str, Any] | None) -> list[str]:
    if found is None:
        return []
    expected = ", ".join(f"{length}: {ms:.1f}" for length, ms in found["expected_ms"].items())
    kept = f"; remembered in {found['remembered_in']}" if found["remembered_in"] else ""
    return [
        f"drafts of {found['draft_length']} tokens are best here (default {found['default']}){kept}\n"
        f"  ms expected of a call by draft length: {expected}"
    ]


def render_limit(limit: Mapping[str, float], p50_ms: float) -> str:
    """The arithmetic of the least time, beside what was measured."""
    return (
        f"limit: {limit['passes']:g} passes × {limit['weight_bytes'] / 1e6:.1f} MB of weights / "
        f"{limit['memory_bandwidth_gb_per_s']:.1f} GB/s = {limit['limit_ms']:.1f} ms; measured {p50_ms:.1f} ms"
    )


def render_batch(batch: Mapping[str, Any]) -> str:
    """Requests a second in batches and one by one."""
    return (
        f"batches, requests a second: {batch['requests_per_second']:.1f} (one by one "
        f"{batch['requests_per_second_one_by_one']:.1f}; mlx_lm.generate "
        f"{batch['requests_per_second_mlx_lm_generate']:.1f}; mlx_lm.batch_generate with prompt caches "
        f"{batch['requests_per_second_mlx_lm_batch_generate']:.1f}): {times(batch['batch_speedup'])} mlx_lm.generate"
    )


def render_fresh(fresh: Mapping[str, Mapping[str, float | None]]) -> str:
    """Starts in fresh processes."""
    rows: list[tuple[str, ...]] = []
    rows.append(
        ("fresh process", "model loaded ms", "first answer ms", "first request ms", "a later one ms", "peak MB")
    )
    for name, one in fresh.items():
        keys = ("loaded_ms", "cold_start_ms", "first_request_ms", "later_request_ms")
        memory = one["peak_memory_bytes"]
        cells = (_ms(one[key]) for key in keys)
        rows.append((name, *cells, "–" if memory is None else f"{memory / 1e6:.0f}"))
    return table(rows, left=[0])


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"
