"""How MLX runs here: which device, which BLAS, whether it may compile.

Call `prepare()` before the first work is given to MLX; it may be imported already. Importing this module loads neither
mlx nor mlx_lm.
"""

import os
import platform
import shutil
import sys
import threading
import time
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from . import blas, machine
from .blas import Blas
from .errors import RouterError
from .machine import Machine

PACKAGES = (
    "mlx-router",
    "mlx",
    "mlx-cpu",
    "mlx-lm",
    "transformers",
    "tokenizers",
    "huggingface-hub",
    "datasets",
    "pydantic",
    "jsonschema-rs",
    "llguidance",
    "numpy",
    "scipy-openblas32",
)
WIDTH, BROAD = "MLX_BFS_MAX_WIDTH", "2000"
TEMPORARY = ("TMPDIR", "TMP", "TEMP", "TEMPDIR")


@dataclass(frozen=True)
class Backend:
    """What `prepare` set up; it holds for the life of the process."""

    device: Literal["cpu", "gpu"]
    device_name: str | None
    gpu_memory_bytes: int | None  # what the GPU may use without swapping
    blas: Blas
    compiler: str | None  # the C++ compiler that mx.compile calls on a CPU
    compile_enabled: bool
    compile_problem: str | None


@dataclass(frozen=True)
class Runtime:
    """The machine, the versions and the backend, as `mlx-router doctor` shows them and manifests record them."""

    machine: Machine
    python: str
    versions: dict[str, str]  # of the packages that are installed
    backend: Backend | None  # None if MLX can't be imported
    backend_problem: str | None
    model_cache: str  # where Hugging Face models are kept
    model_cache_free_bytes: int | None


_lock = threading.Lock()
_backend: Backend | None = None


def prepare() -> Backend:
    """Set MLX up for this machine, import it, and tell what it runs on; later calls return the same answer.

    Raises RouterError if MLX can't be imported.
    """
    global _backend
    with _lock:
        if _backend is None:
            _backend = _prepare()
        return _backend


def inspect() -> Runtime:
    """Describe where this process runs; sets MLX up as `prepare` does."""
    backend, problem = None, None
    try:
        backend = prepare()
    except RouterError as error:
        problem = error.message
    cache = _model_cache()
    return Runtime(
        machine=machine.inspect(),
        python=platform.python_version(),
        versions=_versions(),
        backend=backend,
        backend_problem=problem,
        model_cache=str(cache),
        model_cache_free_bytes=machine.free_bytes(cache),
    )


def measure_gflops(size: int = 1024, seconds: float = 0.5) -> float:
    """Measure the speed of f32 matrix products on MLX's default device, in GFLOP/s."""
    prepare()
    mx: Any = import_module("mlx.core")
    a, b = mx.random.normal((size, size)), mx.random.normal((size, size))
    mx.eval(a @ b)  # the first product also starts threads and builds kernels
    products, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        mx.eval(a @ b)
        products += 1
    return 2.0 * size**3 * products / elapsed / 1e9


def order_broadly() -> None:
    """Have MLX order operations on a CPU by a search from the results back that is broad, unless its width is set.

    MLX bounds the width at 20 operations. Streams that work on one training step wait less for each other without it;
    gradient checkpointing needs it, for a broad order computes the insides of all blocks again before the first is
    used. MLX reads the variable once a process, with its first operation; later calls change nothing.
    """
    if prepare().device == "gpu" or WIDTH in os.environ:
        return
    mx: Any = import_module("mlx.core")
    os.environ[WIDTH] = BROAD
    try:
        mx.eval(mx.array(0) + 0)
    finally:
        del os.environ[WIDTH]


def _prepare() -> Backend:
    try:
        mx: Any = import_module("mlx.core")
    except (ImportError, OSError) as error:
        raise RouterError(
            f"MLX can't be imported: {error}",
            hint="MLX needs Apple Silicon with macOS 14 or newer, or Linux with glibc 2.35 or newer; "
            "`mlx-router doctor` tells what this machine lacks.",
        ) from error
    gpu = mx.default_device().type == mx.gpu
    info = mx.device_info()
    problem = None if gpu else _compile_problem()
    if problem:
        mx.disable_compile()
    return Backend(
        device="gpu" if gpu else "cpu",
        device_name=info.get("device_name"),
        gpu_memory_bytes=info.get("max_recommended_working_set_size") if gpu else None,
        blas=_blas(Path(mx.__file__).with_name("lib") / "libmlx.so"),
        compiler=shutil.which("g++"),
        compile_enabled=not problem and "MLX_DISABLE_COMPILE" not in os.environ,
        compile_problem=problem,
    )


def _blas(libmlx: Path) -> Blas:
    return Blas("Accelerate", None, fast=True) if sys.platform == "darwin" else blas.bind(libmlx)


def _compile_problem() -> str | None:
    """Tell why `mx.compile` can't build kernels for the CPU here; None if it can."""
    if not shutil.which("g++"):  # the one compiler that MLX calls, by this name
        return "no C++ compiler: g++ is not on the PATH"
    # The first of these that is set, as C++ has it. MLX keeps its kernels there, and raises in the middle of a run
    # if it can't; two users share the default.
    temporary = Path(next((os.environ[name] for name in TEMPORARY if name in os.environ), "/tmp"))
    if not temporary.is_dir():
        return f"MLX can't write its kernels: there is no folder {temporary}"
    folder = temporary / "mlx" / _versions().get("mlx", "") / "cpu"
    existing = next(path for path in (folder, *folder.parents) if path.is_dir())
    if not os.access(existing, os.W_OK | os.X_OK):
        return f"MLX can't write its kernels: {existing} is not writable"
    if os.statvfs(existing).f_flag & getattr(os, "ST_NOEXEC", 0):
        return f"MLX can't load its kernels: {existing} is mounted noexec"
    return None


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _model_cache() -> Path:
    try:
        return Path(import_module("huggingface_hub.constants").HF_HUB_CACHE)
    except ImportError:
        return Path("~/.cache/huggingface/hub").expanduser()
