import os
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOOLS = ("cat", "dirname", "ls", "mkdir", "rm", "sh")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of its own, with our scripts, and a package that installs without a network."""
    folder = tmp_path / "a project"
    shutil.copytree(ROOT / "scripts", folder / "scripts")
    shutil.copy(ROOT / "Makefile", folder)
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n', encoding="utf-8"
    )
    (folder / "backend.py").write_text(BACKEND, encoding="utf-8")
    return folder


BACKEND = """
import pathlib, zipfile

def build_editable(folder, config_settings=None, metadata_directory=None):
    if pathlib.Path("broken").exists():
        raise SystemExit("the network is down")
    name = "demo-1.0-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(folder) / name, "w") as wheel:
        wheel.writestr("demo-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: demo\\nVersion: 1.0\\nProvides-Extra: dev\\n")
        wheel.writestr("demo-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("demo-1.0.dist-info/RECORD", "")
    return name
"""  # noqa: E501


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder to be the whole PATH, on a Linux machine: a few tools, no Python."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        (folder / tool).symlink_to(shutil.which(tool))
    script(folder / "uname", "echo Linux")
    return folder


def script(path: Path, text: str) -> Path:
    path.unlink(missing_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def python(path: Path, pretence: str) -> Path:
    """Write a Python that pretends to be another one; the interpreter behind it can't make environments."""
    behind = script(path.with_name(f"behind-{path.name}"), "exit 1")
    pretences = f"import platform, sys; sys._base_executable = {str(behind)!r}; {pretence}"
    return script(path, f"exec '{sys.executable}' -c \"{pretences}\n$2\"")


def environment(project: Path, programs: Path | None, *arguments: str) -> subprocess.CompletedProcess[str]:
    variables = os.environ | {"HOME": str(project), "PIP_NO_INDEX": "1"}
    variables.pop("PYENV_ROOT", None)
    if programs:
        variables["PATH"] = str(programs)
    return subprocess.run(
        [str(project / "scripts/environment.sh"), *arguments],
        env=variables, capture_output=True, text=True, encoding="utf-8", check=False,
    )  # fmt: skip


def error(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one line that a failed run says."""
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: ")
    return line


def test_without_any_python_one_line_says_what_to_install(project, programs):
    line = error(environment(project, programs, "env"))
    assert "3.11" in line and "brew install" in line and "apt install" in line and "PYTHON=" in line
    assert not (project / "env").exists()


def test_unfit_pythons_are_named_with_their_reasons(project, programs):
    script(
        programs / "python3.14", "echo 'pyenv: python3.14: command not found' >&2; echo >&2; echo more >&2; exit 127"
    )
    python(programs / "python3.13", "sys.modules['ensurepip'] = None")
    python(programs / "python3", "sys.version_info = (3, 9, 18)")
    line = error(environment(project, programs, "env"))
    assert "python3.14 does not run" in line
    assert "python3.13 lacks venv" in line
    assert "python3 is Python 3.9" in line


@pytest.mark.parametrize(
    ("pretence", "words"),
    [
        ("sys.version_info = (3, 15, 0)", "is Python 3.15"),
        ("platform.libc_ver = lambda: ('glibc', '2.31')", "glibc 2.31"),
        ("sys.modules['venv'] = None", "apt install python"),
    ],
)
def test_the_python_that_the_user_names_is_used_or_refused_never_replaced(project, programs, pretence, words):
    python(programs / "python3.12", "")
    named = python(programs / "mine", pretence)
    assert words in error(environment(project, programs, "env", str(named)))
    assert "PYTHON=python9 does not exist" in error(environment(project, programs, "env", "python9"))


@pytest.mark.parametrize("shelf", ["bin", ".pyenv"])
def test_the_first_fit_python_is_taken(project, programs, shelf):
    python(programs / "python3.14", "sys.exit('broken')")
    fit = programs / "python3.12"
    if shelf == ".pyenv":  # installed, but not among those that the shims serve
        fit = project / ".pyenv/versions/3.12.1/bin/python"
        fit.parent.mkdir(parents=True)
    python(fit, "")
    done = environment(project, programs, "env")
    assert f"with {fit.with_name('behind-' + fit.name)}" in done.stderr
    assert done.returncode == 2 and "name another Python" in done.stderr  # since the one behind it exits with 1


def test_uv_is_asked_when_no_other_python_is_there(project, programs):
    elsewhere = python(project / "managed", "")
    script(programs / "uv", f'if [ "$2" = find ]; then echo "{elsewhere}"; fi')
    assert f"with {elsewhere.with_name('behind-managed')}" in environment(project, programs, "env").stderr


@pytest.mark.parametrize(
    ("arm", "macos", "architecture", "words"),
    [
        ("0", "14.5", "x86_64", "Intel"),
        ("1", "13.6.1", "arm64", "macOS 13.6.1"),
        ("1", "15.0", "x86_64", "python3.12 is an x86 Python on Apple Silicon"),
    ],
)
def test_a_mac_that_mlx_can_not_run_on_is_told_why(project, programs, arm, macos, architecture, words):
    script(programs / "uname", "echo Darwin")
    script(programs / "sysctl", f"echo {arm}")
    script(programs / "sw_vers", f"echo {macos}")
    python(programs / "python3.12", f"platform.machine = lambda: '{architecture}'")
    assert words in error(environment(project, programs, "env"))


def test_a_folder_that_make_did_not_make_is_left_alone(project, programs):
    python(programs / "python3.12", "")
    (project / "env").mkdir()
    (project / "env/letter.txt").write_text("dear", encoding="utf-8")
    assert "did not make it" in error(environment(project, programs, "env"))
    assert (project / "env/letter.txt").read_text(encoding="utf-8") == "dear"
    subprocess.run(["make", "-s", "clean", "VENV=env"], cwd=project, capture_output=True, check=True)
    assert (project / "env/letter.txt").exists()


def test_help_names_the_commands():
    done = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=True)
    for command in ("make demo", "make test", "make check-all", "make clean"):
        assert command in done.stdout


@pytest.mark.slow
def test_an_environment_is_made_once_and_made_again_when_it_must(project):
    folder = project / "env"
    made = folder / "made-by-the-first-run"

    def run() -> subprocess.CompletedProcess[str]:
        return environment(project, None, "env", sys.executable)

    # An installation that fails is not taken for a finished one.
    (project / "broken").touch()
    assert "installation failed" in run().stderr
    (project / "broken").unlink()
    assert run().returncode == 0
    made.touch()
    done = run()
    assert done.returncode == 0 and done.stdout + done.stderr == ""

    # A changed pyproject.toml installs again, in the same environment.
    os.utime(project / "pyproject.toml", (time.time() + 5,) * 2)
    assert "Installing" in run().stderr and made.exists()
    os.utime(project / "pyproject.toml", (time.time() - 60,) * 2)

    # Moved, its scripts point nowhere: made anew.
    project.rename(project.with_name("moved"))
    moved = project.with_name("moved")
    done = environment(moved, None, "env", sys.executable)
    assert "Making the environment" in done.stderr and done.returncode == 0
    assert not (moved / "env" / made.name).exists()
    pip = subprocess.run([moved / "env/bin/pip", "--version"], capture_output=True, text=True, check=True)
    assert str(moved) in pip.stdout

    # Broken: made anew.
    (moved / "env/bin/python").unlink()
    assert "Making the environment" in environment(moved, None, "env", sys.executable).stderr
    subprocess.run(["make", "-s", "clean", "VENV=env"], cwd=moved, capture_output=True, check=True)
    assert not (moved / "env").exists()
