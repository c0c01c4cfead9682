"""What importing costs, and that the package's modules import one way only."""

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "mlx_router"

# The floors of the package: a module imports only from those above it. Put a new module where it belongs.
FLOORS = (
    *("errors", "calls", "schemas", "matching", "catalogue", "shortlist"),
    *("signature", "docstrings", "declared", "interop", "parsing", "prompts"),
    *("duplicates", "grounding", "policy", "certainty"),
    *("capitals", "data", "formats", "config", "tables", "curve_sizes"),
    *("machine", "blas", "runtime", "ranks", "doctor", "manifest", "storage", "model", "fine_tuning"),
    *("worker", "exponential", "streams", "attention", "heads"),
    *("drafts", "confidence", "grammar", "prefixes", "ragged", "answers", "lockstep"),
    *("decoder", "draft_lengths", "loading", "fusing", "asking", "router"),
    *("metrics", "resampling", "trends", "evaluation", "calibration", "rendering", "judging", "thresholds"),
    *("limits", "tuning", "peers", "races", "fresh", "bench"),
    *("pairing", "comparison", "gates"),
    *("splits", "findings", "repeats", "rules", "checks"),
    *("patterns", "samples", "wording", "templates", "project", "variants", "distractors", "harder"),
    *("plots", "history", "choosing"),
    *("records", "leaks", "calibrating", "parity", "batches", "caution"),
    *("recompute", "loss", "optimizer", "checkpoints", "allocator"),
    *("preparing", "watching", "training", "budget", "learning_curve"),
    *("bag_of_words", "baselines", "curves", "faults", "breakdown", "report", "report_text"),
    *("charts", "markup", "matrix", "cards", "page", "server"),
)
# The only modules that import mlx or mlx_lm.
ON_MLX = {"runtime", "ranks", "model", "heads", "prefixes", "ragged", "answers", "lockstep", "decoder", "fusing"}
ON_MLX |= {"worker", "streams", "fine_tuning", "limits", "peers"}
ON_MLX |= {"exponential", "attention", "recompute", "loss", "optimizer", "checkpoints"}
ON_MLX |= {"preparing", "watching", "training", "budget"}
HEAVY = {"mlx", "mlx_lm", "transformers", "datasets"}


def modules() -> dict[str, ast.Module]:
    """The package's modules but for `__init__`, which loads its names on first use, and the command line."""
    names = (path.stem for path in PACKAGE.glob("*.py"))
    return {name: ast.parse((PACKAGE / f"{name}.py").read_text(encoding="utf-8")) for name in names if not is_cli(name)}


def is_cli(name: str) -> bool:
    return name in ("__init__", "__main__", "cli") or name.startswith("cli_")


def imported(tree: ast.Module) -> Iterator[str]:
    """Everything that a module imports, lazily or not: `.name` for a neighbour, else the top package's name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield str(node.module).partition(".")[0]
        elif isinstance(node, ast.ImportFrom):
            yield from [f".{node.module}"] if node.module else [f".{alias.name}" for alias in node.names]


def test_every_module_has_its_floor() -> None:
    assert len(FLOORS) == len(set(FLOORS))
    assert sorted(set(modules()) - set(FLOORS)) == []


def test_modules_import_only_from_above() -> None:
    wrong = [
        f"{name} imports {other}"
        for name, tree in modules().items()
        for other in (neighbour.removeprefix(".") for neighbour in imported(tree) if neighbour.startswith("."))
        if name in FLOORS
        and not other.startswith("__")
        and (other not in FLOORS or FLOORS.index(other) >= FLOORS.index(name))
    ]
    assert wrong == []


def test_nothing_imports_the_command_line() -> None:
    wrong = [
        f"{name} imports {other}"
        for name, tree in modules().items()
        for other in imported(tree)
        if other.startswith(".") and is_cli(other.removeprefix(".")) and not other.startswith(".__")
    ]
    assert wrong == []


def test_the_package_imports_itself_by_relative_names_only() -> None:
    assert [name for name, tree in modules().items() if "mlx_router" in imported(tree)] == []


def test_only_these_modules_import_mlx() -> None:
    found = {name for name, tree in modules().items() if {"mlx", "mlx_lm"} & set(imported(tree))}
    assert found <= ON_MLX


def loaded_by(code: str) -> set[str]:
    """The top-level modules that a fresh Python has loaded after running this."""
    script = f"import sys\n{code}\nprint('\\nLOADED', *sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("LOADED")[2].split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    loaded = loaded_by("import mlx_router; dir(mlx_router); mlx_router.__version__")
    assert "mlx_router" in loaded
    assert loaded & (HEAVY | {"pydantic", "jsonschema_rs", "click", "numpy"}) == set()


def test_catalogues_parsing_and_metrics_need_no_mlx() -> None:
    """A service that only checks calls, or scores predictions, may do so without it."""
    names = "declared, interop, parsing, prompts, signature, metrics"
    loaded = loaded_by(f"from mlx_router import Catalogue, parse, {names}")
    assert "pydantic" in loaded
    assert loaded & HEAVY == set()


needs_cli = pytest.mark.skipif(
    importlib.util.find_spec("mlx_router.cli") is None, reason="there is no command line yet"
)


@needs_cli
@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["-h"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    run = (
        f"sys.argv = ['mlx-router', *{arguments!r}]\n"
        "from mlx_router.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code"
    )
    loaded = loaded_by(run)
    assert "click" in loaded
    assert loaded & (HEAVY | {"pydantic", "jsonschema_rs", "numpy"}) == set()
