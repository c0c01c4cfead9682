"""What the machine offers: processor, system, memory, disk; read from the system itself, without dependencies."""

import math
import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Machine:
    """The machine as this Python sees it; a size that the system does not tell is None."""

    system: str  # "Linux", "Darwin"
    release: str  # the macOS version, else the kernel's
    architecture: str
    rosetta: bool  # an x86 Python on Apple Silicon
    cpus: int
    memory_total_bytes: int | None
    memory_available_bytes: int | None


def inspect() -> Machine:
    """Look at the machine; takes some milliseconds."""
    darwin = platform.system() == "Darwin"
    total, available = _darwin_memory() if darwin else _linux_memory()
    return Machine(
        system=platform.system(),
        release=_answer("sw_vers", "-productVersion") if darwin else platform.release(),
        architecture=platform.machine(),
        rosetta=darwin and _answer("sysctl", "-n", "sysctl.proc_translated") == "1",
        cpus=usable_cpus(),
        memory_total_bytes=total,
        memory_available_bytes=available,
    )


def usable_cpus(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how many processors this process may keep busy, a container's quota of CPU time included."""
    if not hasattr(os, "sched_getaffinity"):  # macOS
        return os.cpu_count() or 1
    cpus = len(os.sched_getaffinity(0))
    # "200000 100000": microseconds of CPU time per period; "max" without a quota.
    match = re.fullmatch(r"(\d+) (\d+)\n?", _contents(cgroup / "cpu.max"))
    return min(cpus, max(1, math.ceil(int(match[1]) / int(match[2])))) if match else cpus


def free_bytes(folder: Path) -> int | None:
    """Return the free space of the disk that holds a folder, which need not exist yet."""
    for path in (folder, *folder.parents):
        if path.is_dir():
            return shutil.disk_usage(path).free
    return None


def _linux_memory() -> tuple[int | None, int | None]:
    """Return total and available memory in bytes."""
    sizes = parse_sizes(_contents(Path("/proc/meminfo")))
    total, available = sizes.get("MemTotal"), sizes.get("MemAvailable")
    room = container_room()
    if room is None or total is None or available is None:
        return total, available
    return min(total, room[0]), min(available, room[1])


def container_room(cgroup: Path = Path("/sys/fs/cgroup")) -> tuple[int, int] | None:
    """Return a container's memory limit and what is left of it in bytes, None without a limit."""
    limit, used = _contents(cgroup / "memory.max").strip(), _contents(cgroup / "memory.current").strip()
    if not (limit.isdigit() and used.isdigit()):
        return None
    # Cached files count as used, and are dropped when memory is asked for.
    files = re.search(r"^file (\d+)$", _contents(cgroup / "memory.stat"), re.MULTILINE)
    left = int(limit) - int(used) + (int(files[1]) if files else 0)
    return int(limit), max(0, left)


def parse_sizes(meminfo: str) -> dict[str, int]:
    """Return the sizes of Linux's /proc/meminfo in bytes, by name."""
    return {name: int(kib) * 1024 for name, kib in re.findall(r"(\w+):\s+(\d+) kB", meminfo)}


def _darwin_memory() -> tuple[int | None, int | None]:
    """Return total and available memory in bytes; available is what is free or given up on demand."""
    total = _answer("sysctl", "-n", "hw.memsize")
    return int(total) if total.isdigit() else None, parse_vm_stat(_answer("vm_stat"))


def parse_vm_stat(text: str) -> int | None:
    """Return the bytes that macOS's `vm_stat` counts as free, inactive or speculative."""
    page = re.search(r"page size of (\d+) bytes", text)
    pages = re.findall(r"^Pages (?:free|inactive|speculative):\s+(\d+)\.", text, re.MULTILINE)
    return sum(map(int, pages)) * int(page[1]) if page and pages else None


def _answer(*command: str) -> str:
    """Return what a system command says, stripped; empty if it is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _contents(path: Path) -> str:
    """Return the text of a file of the system's, empty where it has none."""
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
