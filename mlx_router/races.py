"""Several ways of answering the same requests, timed in turn, so that a busy minute falls on all of them."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from .calls import Generation
from .metrics import percentile

# (scene, contestant)
Name: TypeAlias = tuple[str, str]


@dataclass(frozen=True)
class Call:
    """One answer: milliseconds in all and to the first token, forward passes, and the text."""

    total_ms: float
    first_token_ms: float
    passes: int
    output: str

    @classmethod
    def of(cls, generation: Generation, around_ms: float = 0.0) -> "Call":
        """The call of a generation with timings; `around_ms` is what was spent outside the decoder."""
        timings = generation.timings
        assert timings is not None
        return cls(
            timings.total_ms + around_ms, timings.prefill_ms + around_ms, timings.forward_passes, generation.text
        )


@dataclass(frozen=True)
class Lane:
    """A contestant in a scene: `call` answers a request by its number. It answers `limit` requests at most.

    Without `warm` it runs no request first that is not counted, for contestants that keep nothing and take long.
    """

    scene: str
    contestant: str
    call: Callable[[int], Call]
    limit: int | None = None
    warm: bool = True

    @property
    def name(self) -> Name:
        return self.scene, self.contestant


@dataclass(frozen=True)
class Summary:
    """What a lane's calls took."""

    calls: int
    p50_ms: float
    p95_ms: float
    first_token_p50_ms: float
    passes_median: float


def race(
    lanes: Sequence[Lane],
    count: int,
    *,
    seconds: float | None = None,
    least: int = 3,
    progress: Callable[[str], None] | None = None,
) -> dict[Name, list[Call]]:
    """The calls of each lane for the requests 0, 1, …, `count` of them, or as many as fit into `seconds`.

    Every request is answered by all lanes before the next one; another lane begins each time.
    """
    report = progress or (lambda line: None)
    for lane in lanes:
        if lane.warm:
            start = time.perf_counter()
            lane.call(0)
            report(f"{lane.scene}: {lane.contestant} warm after {time.perf_counter() - start:.1f} s")
    found: dict[Name, list[Call]] = {lane.name: [] for lane in lanes}
    start = time.perf_counter()
    for number in range(count):
        first = number % len(lanes)
        for lane in (*lanes[first:], *lanes[:first]):
            if lane.limit is None or number < lane.limit:
                found[lane.name].append(lane.call(number))
        spent = time.perf_counter() - start
        step = max(1, count // 10)
        if (number + 1) % step == 0 or number + 1 == count or spent > 10 * (number + 1):
            report(f"request {number + 1} of {count} answered by all, {spent:.0f} s")
        if seconds is not None and number + 1 >= least and spent > seconds:
            report(f"stopped after {number + 1} requests: {seconds:.0f} s are over")
            break
    return found


def summarize(calls: Sequence[Call]) -> Summary:
    """Medians, and the nearest-rank 95th percentile."""
    times = sorted(call.total_ms for call in calls)
    return Summary(
        calls=len(calls),
        p50_ms=statistics.median(times),
        p95_ms=percentile(times, 95),
        first_token_p50_ms=statistics.median(call.first_token_ms for call in calls),
        passes_median=statistics.median(call.passes for call in calls),
    )


def speedup(slow: Sequence[Call], fast: Sequence[Call]) -> float:
    """How many times faster the second is: the median ratio over the requests that both answered."""
    return statistics.median(one.total_ms / other.total_ms for one, other in zip(slow, fast, strict=False))


def first_token_speedup(slow: Sequence[Call], fast: Sequence[Call]) -> float:
    """The same for the time to the first token."""
    return statistics.median(one.first_token_ms / other.first_token_ms for one, other in zip(slow, fast, strict=False))


def differences(left: Sequence[Call], right: Sequence[Call]) -> int:
    """How many of the requests that both answered were answered differently."""
    return sum(one.output != other.output for one, other in zip(left, right, strict=False))
