"""A start measured in a process of its own: until the first answer is there, and how much memory it takes."""

import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .errors import RouterError
from .router import Router

PROGRAM = ("-c", "from mlx_router.fresh import main; main()")
SHOWN_ERROR = 2000


@dataclass(frozen=True)
class Fresh:
    """A process from its start: until the model was loaded, until the first answer, the first request, later ones.

    `peak_memory_bytes` is the largest resident size, None where the system does not tell.
    """

    loaded_ms: float
    cold_start_ms: float
    first_request_ms: float
    later_request_ms: float | None
    peak_memory_bytes: int | None


def run_fresh(program: Sequence[str], payload: dict[str, Any]) -> Fresh:
    """Start a Python program that ends with `report`, the payload on its stdin. Raises `RouterError` if it fails."""
    given = json.dumps({**payload, "started": time.time()})
    done = subprocess.run(
        [sys.executable, *program], input=given, capture_output=True, text=True, encoding="utf-8", check=False
    )
    if done.returncode:
        raise RouterError(f"a fresh process could not answer: {done.stderr.strip()[-SHOWN_ERROR:]}")
    return Fresh(**json.loads(done.stdout.splitlines()[-1]))


def report(
    started: float,
    open_router: Callable[[], Router],
    requests: Sequence[str],
    before: Callable[[int], None] = lambda number: None,
) -> None:
    """Open a router, answer the requests, and print what it took as one line of JSON.

    `started` is a reading of `time.time()`; `before` is called with each request's number.
    """
    router = open_router()
    loaded = time.time()
    times = []
    for number, request in enumerate(requests):
        before(number)
        start = time.perf_counter()
        router.route(request)
        times.append((time.perf_counter() - start) * 1e3)
        if len(times) == 1:
            answered = time.time()
    later = sorted(times[1:])
    found = Fresh(
        loaded_ms=(loaded - started) * 1e3,
        cold_start_ms=(answered - started) * 1e3,
        first_request_ms=times[0],
        later_request_ms=later[len(later) // 2] if later else None,
        peak_memory_bytes=peak_memory(),
    )
    print(json.dumps(asdict(found)))


def peak_memory() -> int | None:
    """The largest resident size of this process so far, in bytes."""
    if platform.system() == "Darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # getrusage would give the parent's where that is larger.
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None


def main() -> None:
    """Answer with an adapter folder or a fused model; the payload on stdin says which and how."""
    payload = json.loads(sys.stdin.read())
    folder, base = payload["folder"], payload["base"]

    def with_router() -> Router:
        return Router.load(folder, base=base, cache_dir=payload["cache_dir"])

    def with_mlx_lm() -> Router:
        from .manifest import read_manifest
        from .model import find_base
        from .peers import MlxLmDecoder, load_with_mlx_lm

        manifest = read_manifest(Path(folder))
        fused = manifest.kind == "fused"
        where = folder if fused else find_base(base or manifest.base.name, manifest.base.revision)[0]
        network, chat = load_with_mlx_lm(str(where), None if fused else folder)
        return Router(
            MlxLmDecoder(network, chat),
            manifest.read_catalogue(),
            style=manifest.prompt_style,
            system=manifest.system,
            max_tokens=manifest.max_tokens,
            manifest=manifest,
        )

    report(payload["started"], with_mlx_lm if payload["mlx_lm"] else with_router, payload["requests"])
