"""Models are run by threads that stay: callers' threads may come and go."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlx_router.worker import compute

PROGRAM = """
import sys
from concurrent.futures import ThreadPoolExecutor
from mlx_router import Router

REQUESTS = ["Where's my order ORD-1234?", "Hi!", "A human, now!", "Refund 12."]

def work(number):
    router = Router.load(sys.argv[1])
    return [one.raw for one in router.route_many(REQUESTS)], router.route(REQUESTS[number]).raw

alone = [one.raw for one in Router.load(sys.argv[1]).route_many(REQUESTS)]
with ThreadPoolExecutor(4) as pool:
    found = list(pool.map(work, range(4)))
assert found == [(alone, one) for one in alone], (found, alone)
"""


def name() -> str:
    return threading.current_thread().name


def in_another_thread(function: object) -> object:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()  # type: ignore[arg-type]


def test_a_process_whose_threads_loaded_routers_and_routed_ends_well(adapter: Path) -> None:
    """MLX aborts a process on its way out where a thread that has ended had computed something."""
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", PROGRAM, str(adapter)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_other_threads_than_the_main_one_have_their_work_done_by_one() -> None:
    assert compute(name) == "MainThread"
    assert {in_another_thread(lambda: compute(name)) for _ in range(3)} == {"mlx-router"}
    assert in_another_thread(lambda: compute(lambda: compute(name))) == "mlx-router"


def test_what_the_work_raises_is_raised_where_it_was_asked_for() -> None:
    def fail() -> None:
        raise ZeroDivisionError("here")

    with pytest.raises(ZeroDivisionError, match="here"):
        in_another_thread(lambda: compute(fail))
    assert in_another_thread(lambda: compute(name)) == "mlx-router"
