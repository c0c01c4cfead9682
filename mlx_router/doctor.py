"""What `mlx-router doctor` says: where this runs, how fast, and what to do about each weak spot."""

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from . import runtime
from .runtime import Runtime

Level: TypeAlias = Literal["error", "warning"]

GIB = 1024**3
ENOUGH_MEMORY = 4 * GIB  # a 0.6B base in training
LEAST_MEMORY = 1 * GIB  # the embedded base in training
ENOUGH_DISK = 5 * GIB  # one base of a few billion weights, in 4 bits


@dataclass(frozen=True)
class Advice:
    """One weak spot and what to do about it; an "error" keeps the router from working, a "warning" makes it slow."""

    level: Level
    problem: str
    remedy: str


@dataclass(frozen=True)
class Report:
    """A finished examination."""

    runtime: Runtime
    gflops: float | None  # of f32 matrix products; None if not measured
    advice: tuple[Advice, ...]

    @property
    def failed(self) -> bool:
        """Tell whether something keeps the router from working: exit code 1."""
        return any(item.level == "error" for item in self.advice)

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {
            "ok": not self.failed,
            "runtime": asdict(self.runtime),
            "gflops_f32": self.gflops,
            "advice": [asdict(item) for item in self.advice],
        }


def examine(*, measure: bool = True) -> Report:
    """Look at this machine; with `measure`, also time a matrix product, which takes about a second."""
    found = runtime.inspect()
    gflops = runtime.measure_gflops() if measure and found.backend else None
    return Report(found, gflops, tuple(advice(found)))


def advice(found: Runtime) -> list[Advice]:
    """Return what to do about each weak spot, errors first."""
    items = [*_platform_advice(found), *_space_advice(found), *_backend_advice(found)]
    return sorted(items, key=lambda item: item.level != "error")


def _platform_advice(found: Runtime) -> Iterator[Advice]:
    machine = found.machine
    darwin = machine.system == "Darwin"
    if machine.rosetta:
        problem = "This Python is an x86 one on Apple Silicon; MLX needs a native one."
        yield Advice("error", problem, "Install an arm64 Python, for instance `brew install python@3.13`.")
    elif darwin and machine.architecture == "x86_64":
        problem = "This Mac has an Intel processor; MLX needs Apple Silicon."
        yield Advice("error", problem, "Run it on a Mac of the M series, or on Linux.")
    if darwin and _major(machine.release) < 14:
        problem = f"This is macOS {machine.release or 'of unknown version'}; MLX needs 14 or newer."
        yield Advice("error", problem, "Update macOS in System Settings > General > Software Update.")
    if found.backend_problem:
        yield Advice("error", found.backend_problem, "Install it anew: `make clean`, then `make test`.")


def _space_advice(found: Runtime) -> Iterator[Advice]:
    memory, disk = found.machine.memory_available_bytes, found.model_cache_free_bytes
    if memory is not None and memory < ENOUGH_MEMORY:
        level: Level = "error" if memory < LEAST_MEMORY else "warning"
        problem = f"Only {_gib(memory)} of memory are available."
        yield Advice(level, problem, "Close other programs; train a small base, with a smaller batch_size.")
    if disk is not None and disk < ENOUGH_DISK:
        problem = f"Only {_gib(disk)} are free on the disk of {found.model_cache}; the embedded base needs none of it."
        yield Advice("warning", problem, "For a downloaded base, set HF_HOME to a folder on a larger disk.")


def _backend_advice(found: Runtime) -> Iterator[Advice]:
    backend = found.backend
    if backend is None:
        return
    if backend.device == "cpu" and found.machine.system == "Darwin":
        problem = "Metal is not available, so MLX runs on the CPU."
        yield Advice("warning", problem, "Run it outside of a sandbox or virtual machine.")
    if not backend.blas.fast:
        problem = (
            f"Matrix products use the reference BLAS, which is many times slower: {'; '.join(backend.blas.problems)}."
        )
        yield Advice(
            "warning", problem, "Install OpenBLAS: `pip install scipy-openblas32`, or `sudo apt install libopenblas0`."
        )
    if backend.compile_problem:
        install = "Install a C++ compiler (Debian, Ubuntu: `sudo apt install g++`)."
        remedy = "Set TMPDIR to a folder of your own." if backend.compiler else install
        yield Advice("warning", f"mx.compile is off: {backend.compile_problem}.", remedy)


def render(report: Report) -> str:
    """Return the report as text for a terminal."""
    facts = _facts(report)
    width = max(len(name) for name, _ in facts)
    lines = [f"{name:<{width}}  {value}" for name, value in facts]
    for item in report.advice:
        lines += ["", f"{item.level}: {item.problem}", f"  {item.remedy}"]
    return "\n".join(lines if report.advice else [*lines, "", "No weak spots found."])


def _facts(report: Report) -> list[tuple[str, str]]:
    found, machine, backend = report.runtime, report.runtime.machine, report.runtime.backend
    facts = [
        ("system", f"{_system_name(found)} on {machine.architecture}, {machine.cpus} CPUs"),
        ("memory", f"{_gib(machine.memory_total_bytes)}, {_gib(machine.memory_available_bytes)} available"),
        ("python", found.python),
        ("packages", ", ".join(f"{name} {number}" for name, number in found.versions.items())),
        ("model cache", f"{found.model_cache} ({_gib(found.model_cache_free_bytes)} free)"),
    ]
    if backend:
        facts += [
            ("device", backend.device + (f" ({backend.device_name})" if backend.device_name else "")),
            ("BLAS", backend.blas.name + (f", {backend.blas.library}" if backend.blas.library else "")),
            ("mx.compile", "on" if backend.compile_enabled else "off"),
        ]
    if report.gflops is not None:
        facts.append(("speed", f"{report.gflops:,.0f} GFLOP/s in f32 matrix products"))
    return facts


def _system_name(found: Runtime) -> str:
    name = "macOS" if found.machine.system == "Darwin" else found.machine.system
    return f"{name} {found.machine.release}".strip()


def _major(release: str) -> int:
    match = re.match(r"\d+", release)
    return int(match[0]) if match else 0


def _gib(size: int | None) -> str:
    return "unknown" if size is None else f"{size / GIB:.1f} GiB"
