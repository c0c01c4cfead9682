"""A second thread of work on a CPU: MLX's streams have one each, and small products and loops fill no more than one."""

from typing import Any

from .exponential import is_fast
from .machine import usable_cpus
from .model import ONE_THREAD_BELOW, parameter_counts

import mlx.core as mx  # isort: skip

_second = mx.new_thread_local_stream(mx.cpu) if is_fast() and usable_cpus() > 1 else None


def second_stream(network: Any) -> Any:
    """A stream beside the default one; None where the network's products fill the processor, or it has one core."""
    return None if _second is None or parameter_counts(network)[1] >= ONE_THREAD_BELOW else _second
