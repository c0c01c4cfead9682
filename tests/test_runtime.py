import json
import os
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from mlx_router import doctor, machine, runtime
from mlx_router.blas import Blas
from mlx_router.errors import RouterError
from mlx_router.machine import Machine
from mlx_router.runtime import Backend, Runtime

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="macOS brings its own BLAS")

GIB = 1024**3

# Products of small integers are exact in every BLAS; one product for each of the functions that are replaced.
PRODUCTS = """
import json, sys
from mlx_router import runtime
backend = runtime.prepare()
import mlx.core as mx
rows = [[i * 7 % 5 - 2 for i in range(r, r + 9)] for r in range(9)]
wanted = [[sum(a * b for a, b in zip(row, column)) for column in zip(*rows)] for row in rows]
right = []
for dtype in (mx.float32, mx.float64, mx.complex64):
    with mx.stream(mx.cpu):
        a = mx.array(rows).astype(dtype)
        right.append([[int(complex(x).real) for x in row] for row in (a @ a).tolist()] == wanted)
json.dump({"name": backend.blas.name, "library": backend.blas.library, "fast": backend.blas.fast, "right": right,
           "gflops": runtime.measure_gflops(size=128, seconds=0.01)}, sys.stdout)
"""

COMPILED = """
import json, sys
from mlx_router import runtime
backend = runtime.prepare()
import mlx.core as mx
value = mx.compile(lambda x: mx.exp(x) * x + 1.5)(mx.array([0.0, 0.0])).tolist()
json.dump({"enabled": backend.compile_enabled, "problem": backend.compile_problem, "value": value}, sys.stdout)
"""


def answer(program: str, before: str = "", **environment: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", before + "\n" + program],
        env=os.environ | environment, capture_output=True, text=True, encoding="utf-8", timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def system_openblas() -> str | None:
    program = "import ctypes, json, sys; ctypes.CDLL('libopenblas.so.0'); json.dump({}, sys.stdout)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    return "libopenblas.so.0" if done.returncode == 0 else None


without_wheel = "import sys; sys.modules['scipy_openblas32'] = None"


@linux_only
@pytest.mark.skipif(find_spec("scipy_openblas32") is None, reason="scipy-openblas32 is not installed")
@pytest.mark.parametrize("before", ["", "import mlx.core"], ids=["first", "after mlx"])
def test_products_are_answered_by_the_wheels_openblas(before):
    seen = answer(PRODUCTS, before)
    assert "libscipy_openblas" in seen["library"] and seen["fast"]
    assert seen["right"] == [True, True, True] and seen["gflops"] > 0


@linux_only
def test_products_are_answered_by_the_systems_openblas():
    if not system_openblas():
        pytest.skip("libopenblas.so.0 is not installed")
    seen = answer(PRODUCTS, without_wheel)
    assert "openblas" in seen["library"] and seen["name"] == "OpenBLAS (system)"
    assert seen["right"] == [True, True, True] and seen["gflops"] > 0


@linux_only
def test_a_preloaded_blas_is_kept():
    if not system_openblas():
        pytest.skip("libopenblas.so.0 is not installed")
    seen = answer(PRODUCTS, LD_PRELOAD="libopenblas.so.0")
    assert "scipy" not in seen["library"] and "openblas" in seen["library"]
    assert seen["right"] == [True, True, True]


@linux_only
def test_without_any_openblas_the_reference_one_answers_and_says_why():
    nothing = without_wheel + "; from mlx_router import blas; blas.SYSTEM_LIBRARIES = ('libnothing.so.0',)"
    seen = answer(PRODUCTS, nothing)
    assert seen["name"] == "reference" and not seen["fast"]
    assert seen["right"] == [True, True, True]


def test_importing_runtime_and_doctor_loads_no_mlx():
    program = "import json, sys, mlx_router.doctor; json.dump([m for m in sys.modules if m[:3] == 'mlx'], sys.stdout)"
    assert all(name.startswith("mlx_router") for name in answer(program))


def test_preparing_leaves_the_environment_alone():
    program = "import json, os, sys; old = dict(os.environ); from mlx_router import runtime; runtime.prepare()"
    assert answer(program + "; json.dump(old == dict(os.environ), sys.stdout)") is True


@linux_only
@pytest.mark.parametrize(
    ("environment", "word"), [({"PATH": "/nonexistent"}, "g++"), ({"TMPDIR": "/nonexistent"}, "/nonexistent")]
)
def test_where_kernels_cannot_be_built_compiled_functions_still_run(environment, word):
    seen = answer(COMPILED, **environment)
    assert seen["value"] == [1.5, 1.5]
    assert not seen["enabled"] and word in seen["problem"]


def test_a_missing_mlx_is_an_error_with_a_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlx.core", None)
    monkeypatch.setattr(runtime, "_backend", None)
    with pytest.raises(RouterError, match="MLX can't be imported"):
        runtime.prepare()
    report = doctor.examine()
    assert report.failed and report.gflops is None
    assert "error: MLX can't be imported" in doctor.render(report)


def test_the_report_of_this_machine_can_be_printed_both_ways():
    report = doctor.examine(measure=False)
    seen = json.loads(json.dumps(report.as_json()))
    assert seen["ok"] is not report.failed
    assert seen["runtime"]["versions"]["mlx"] in doctor.render(report)
    assert seen["runtime"]["machine"]["memory_total_bytes"] >= seen["runtime"]["machine"]["memory_available_bytes"] > 0


SOUND = Runtime(
    machine=Machine("Darwin", "15.3.1", "arm64", False, 10, 32 * GIB, 20 * GIB),
    python="3.13.0",
    versions={"mlx": "0.32.4"},
    backend=Backend("gpu", "Apple M4", 24 * GIB, Blas("Accelerate", None, fast=True), "/usr/bin/g++", True, None),
    backend_problem=None,
    model_cache="/home/me/.cache/huggingface/hub",
    model_cache_free_bytes=100 * GIB,
)


def on_machine(**changes) -> Runtime:
    return replace(SOUND, machine=replace(SOUND.machine, **changes))


def on_backend(**changes) -> Runtime:
    return replace(SOUND, backend=replace(SOUND.backend, **changes))


def test_a_sound_machine_gets_no_advice():
    report = doctor.Report(SOUND, 9000.0, tuple(doctor.advice(SOUND)))
    assert not report.advice and not report.failed
    assert "macOS 15.3.1" in doctor.render(report) and "No weak spots" in doctor.render(report)


@pytest.mark.parametrize(
    ("found", "level", "words"),
    [
        (on_machine(architecture="x86_64", rosetta=True), "error", "arm64 Python"),
        (on_machine(architecture="x86_64"), "error", "Apple Silicon"),
        (on_machine(release="13.6"), "error", "macOS 13.6"),
        (on_machine(memory_available_bytes=GIB // 2), "error", "0.5 GiB"),
        (on_machine(memory_available_bytes=3 * GIB), "warning", "3.0 GiB"),
        (replace(SOUND, model_cache_free_bytes=0), "warning", "HF_HOME"),
        (replace(SOUND, backend=None, backend_problem="MLX can't be imported: no"), "error", "make clean"),
        (on_backend(device="cpu"), "warning", "Metal"),
        (on_backend(blas=Blas("reference", None, fast=False, problems=("why",))), "warning", "libopenblas0"),
        (on_backend(compiler=None, compile_problem="no C++ compiler"), "warning", "apt install g++"),
        (on_backend(compile_problem="/tmp/mlx is not writable"), "warning", "TMPDIR"),
    ],
)
def test_each_weak_spot_gets_one_advice(found, level, words):
    (item,) = doctor.advice(found)
    assert item.level == level
    assert words in item.problem + item.remedy


def test_unknown_sizes_are_not_weak_spots():
    unknown = replace(on_machine(memory_total_bytes=None, memory_available_bytes=None), model_cache_free_bytes=None)
    assert doctor.advice(unknown) == []
    assert "unknown" in doctor.render(doctor.Report(unknown, None, ()))


@linux_only
@pytest.mark.parametrize(("quota", "at_most"), [("50000 100000", 1), ("100000 100000", 1), ("max 100000", 10**6)])
def test_a_containers_quota_limits_the_threads(tmp_path: Path, quota, at_most):
    (tmp_path / "cpu.max").write_text(quota + "\n", encoding="ascii")
    assert 1 <= machine.usable_cpus(tmp_path) <= at_most
    (tmp_path / "cpu.max").unlink()
    assert machine.usable_cpus(tmp_path) == len(os.sched_getaffinity(0))


def test_a_containers_memory_limit_counts_its_cached_files_as_free(tmp_path: Path):
    assert machine.container_room(tmp_path) is None
    (tmp_path / "memory.max").write_text(f"{4 * GIB}\n", encoding="ascii")
    (tmp_path / "memory.current").write_text(f"{3 * GIB}\n", encoding="ascii")
    (tmp_path / "memory.stat").write_text(f"anon 5\nfile {GIB}\n", encoding="ascii")
    assert machine.container_room(tmp_path) == (4 * GIB, 2 * GIB)
    (tmp_path / "memory.max").write_text("max\n", encoding="ascii")
    assert machine.container_room(tmp_path) is None


def test_the_memory_of_a_mac_is_read_from_vm_stat():
    text = (
        "Mach Virtual Memory Statistics: (page size of 16384 bytes)\n"
        "Pages free:                               1000.\n"
        "Pages active:                             9000.\n"
        "Pages inactive:                           2000.\n"
        "Pages speculative:                         500.\n"
        "Pages wired down:                         7000.\n"
    )
    assert machine.parse_vm_stat(text) == 3500 * 16384
    assert machine.parse_vm_stat("") is None


def test_free_space_is_told_of_folders_that_do_not_exist_yet(tmp_path: Path):
    assert machine.free_bytes(tmp_path / "not" / "there") == pytest.approx(machine.free_bytes(tmp_path), rel=0.1)


@pytest.mark.parametrize(
    ("device", "own", "seen"), [("cpu", None, ["2000"]), ("cpu", "33", []), ("gpu", None, [])]
)
def test_the_width_is_set_for_the_first_operation_unless_the_user_did(
    monkeypatch: pytest.MonkeyPatch, device: str, own: str | None, seen: list[str]
) -> None:
    monkeypatch.setattr(runtime, "_backend", replace(runtime.prepare(), device=device))
    monkeypatch.delenv(runtime.WIDTH, raising=False)
    if own is not None:
        monkeypatch.setenv(runtime.WIDTH, own)
    found: list[str | None] = []
    monkeypatch.setattr("mlx.core.eval", lambda _: found.append(os.environ.get(runtime.WIDTH)))
    runtime.order_broadly()
    assert found == seen
    assert os.environ.get(runtime.WIDTH) == own
