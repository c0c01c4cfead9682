"""A fast BLAS under MLX on Linux, whose wheel carries only the reference one.

MLX finds `cblas_sgemm` and its kin in the process's global scope before its own copy, if a library that offers them
was opened there before the first import of `mlx.core`. Two are tried: the OpenBLAS of the package `scipy-openblas32`,
whose prefixed names need a shim of three functions, built once by the C compiler; and the system's. The package comes
first because it is current: the OpenBLAS of a stable distribution does not know the newest processors and falls back
to its slowest kernels there.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from .machine import usable_cpus

SYMBOLS = ("cblas_sgemm", "cblas_dgemm", "cblas_cgemm")  # what libmlx.so takes from a CBLAS

# The second is the threaded build's name where the first is single-threaded (Fedora).
SYSTEM_LIBRARIES = ("libopenblasp.so.0", "libopenblas.so.0")
COMPILERS = ("cc", "gcc", "clang", "g++", "c++", "clang++")
LATE = "mlx was imported before mlx_router.runtime.prepare() was called"
SHIM_SOURCE = Path(__file__).with_name("shim.c")


@dataclass(frozen=True)
class Blas:
    """The BLAS that answers MLX's f32 matrix products, and why no faster one does."""

    name: str
    library: str | None
    fast: bool
    problems: tuple[str, ...] = ()


class _Unavailable(Exception):
    """A way to a fast BLAS that is closed here; the message says why."""


def load() -> Blas:
    """Put a fast BLAS into the process's global scope and tell which; call it before `mlx.core` is imported."""
    present = owner_of(SYMBOLS[0])
    if present:
        return Blas("preloaded", present, fast=True)
    if "mlx.core" in sys.modules:
        return Blas("reference", None, fast=False, problems=(LATE,))
    problems = []
    for way in (_load_wheel, _load_system_library):
        try:
            return way()
        except _Unavailable as error:
            problems.append(str(error))
    return Blas("reference", None, fast=False, problems=tuple(problems))


def owner_of(symbol: str) -> str | None:
    """Return the path of the library that offers a symbol in the process's global scope, None if none does."""
    scope = ctypes.CDLL(None)
    if not hasattr(scope, symbol):
        return None
    info = _SymbolInfo()
    scope.dladdr(ctypes.cast(getattr(scope, symbol), ctypes.c_void_p), ctypes.byref(info))
    return os.fsdecode(info.library) if info.library else None


class _SymbolInfo(ctypes.Structure):
    """`Dl_info` of dladdr(3)."""

    _fields_ = (
        ("library", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("symbol", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    )


def _load_wheel() -> Blas:
    try:
        # Importing it opens its library in the global scope.
        package = import_module("scipy_openblas32")
    except (ImportError, OSError) as error:
        raise _Unavailable(f"the package scipy-openblas32 can't be used: {error}") from error
    try:
        _load_shim()
    except OSError as error:
        raise _Unavailable(f"the BLAS shim can't be loaded: {error}") from error
    path = str(Path(package.get_lib_dir()) / package.get_library(fullname=True))
    _fit_threads(ctypes.CDLL(path), prefix="scipy_")
    return Blas("OpenBLAS (scipy-openblas32)", path, fast=True)


def _load_system_library() -> Blas:
    for name in SYSTEM_LIBRARIES:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        # Looked at before it is made global: half a BLAS would mix two libraries.
        if all(hasattr(library, symbol) for symbol in SYMBOLS):
            ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
            _fit_threads(library)
            return Blas("OpenBLAS (system)", owner_of(SYMBOLS[0]) or name, fast=True)
    raise _Unavailable("the system has no libopenblas.so.0")


def _fit_threads(library: ctypes.CDLL, prefix: str = "") -> None:
    """Take no more threads than the container's quota of CPU time feeds; OpenBLAS counts processors only."""
    threads = usable_cpus()
    if threads < library[f"{prefix}openblas_get_num_threads"]():
        library[f"{prefix}openblas_set_num_threads"](threads)


def _load_shim() -> None:
    """Open the shim in the global scope, from the user's cache if it is there or can be put there."""
    try:
        ctypes.CDLL(str(_cached_shim()), mode=ctypes.RTLD_GLOBAL)
    except (OSError, RuntimeError):  # RuntimeError: no home directory
        # Built for this process alone; loaded code outlives its file.
        with tempfile.TemporaryDirectory(prefix="mlx-router-") as folder:
            ctypes.CDLL(str(_build_shim(Path(folder) / "shim.so")), mode=ctypes.RTLD_GLOBAL)


def _cached_shim() -> Path:
    path = cache_folder() / f"{_shim_key()}.so"
    if not _is_ours(path):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _build_shim(path)
    return path


def cache_folder() -> Path:
    """Return the folder for what is built once per user; it need not exist."""
    root = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not root.is_absolute():  # also when unset; the XDG specification says to ignore a relative one
        root = Path.home() / ".cache"
    return root / "mlx-router"


def _shim_key() -> str:
    """Return a name that changes with whatever the compiled shim depends on."""
    parts = (SHIM_SOURCE.read_text(encoding="utf-8"), version("scipy-openblas32"), platform.machine())
    return "cblas-shim-" + hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _is_ours(path: Path) -> bool:
    """Tell whether a file exists and belongs to this user; code of another user's is not run."""
    try:
        return path.stat().st_uid == os.geteuid()
    except OSError:
        return False


def _build_shim(target: Path) -> Path:
    """Compile the shim, written aside and renamed, so that two processes at once do no harm."""
    handle, scratch = tempfile.mkstemp(prefix=target.stem, suffix=".tmp", dir=target.parent)
    os.close(handle)
    try:
        _compile(SHIM_SOURCE, Path(scratch))
        return Path(scratch).replace(target)
    finally:
        Path(scratch).unlink(missing_ok=True)


def _compile(source: Path, target: Path) -> None:
    compilers = [path for path in map(shutil.which, COMPILERS) if path]
    if not compilers:
        raise _Unavailable("no C compiler is on the PATH to adapt scipy-openblas32")
    problems = []
    for compiler in compilers:
        command = [compiler, "-O2", "-fPIC", "-shared", str(source), "-o", str(target)]
        try:
            subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60, check=True)
            return
        except subprocess.CalledProcessError as error:
            problems.append(f"{compiler}: {(error.stderr.strip() or 'failed').splitlines()[0]}")
        except subprocess.TimeoutExpired:
            problems.append(f"{compiler} did not answer within a minute")
    raise _Unavailable(f"the BLAS shim does not compile: {problems[0]}")
