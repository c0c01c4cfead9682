"""Where models are run: by one thread at a time, and never by a thread of the caller's that may end.

MLX keeps a thread of its own for every thread that computed something, and (0.32, on Linux) the process is aborted on
its way out if one of these has ended. So the main thread computes by itself, and all others have it done by one that
stays until the process ends.
"""

import atexit
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

import mlx.core as mx

T = TypeVar("T")

# One device computes for all models of the process, and MLX makes no promise for two threads on one graph.
_device = threading.Lock()
_starting = threading.Lock()
_work: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
_worker: threading.Thread | None = None


def compute(function: Callable[[], T]) -> T:
    """What the function returns or raises."""
    if threading.current_thread() is _worker:
        return function()
    if threading.current_thread() is threading.main_thread():
        with _device:
            return function()
    _start()
    future: Future[T] = Future()
    _work.put((future, function))
    return future.result()


def _start() -> None:
    global _worker
    with _starting:
        if _worker is None or not _worker.is_alive():
            _worker = threading.Thread(target=_run, name="mlx-router", daemon=True)
            _worker.start()
            atexit.register(_stop, _worker)


def _run() -> None:
    while (job := _work.get()) is not None:
        future, function = job
        if not future.set_running_or_notify_cancel():
            continue
        try:
            with _device:
                found = function()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(found)
    mx.clear_streams()


def _stop(worker: threading.Thread) -> None:
    _work.put(None)
    worker.join()
