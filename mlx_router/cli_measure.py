"""What commands measure: a router on test rows, or outputs that were made already, with progress on stderr."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import click

from .calls import Mode
from .data import Example, read
from .evaluation import Constrained, Scored, evaluate, read_predictions
from .interop import load_catalogue
from .leaks import Leaks, find_leaks
from .ranks import Ranks, folder_hash, join, together
from .records import data_record
from .router import Router

if TYPE_CHECKING:
    from .catalogue import Catalogue
    from .cli_report import Material, Wanted


class Measured(NamedTuple):
    """Rows as they were answered, and what was made of them besides."""

    scored: list[Scored]
    leaks: Leaks | None = None
    constrained: Constrained | None = None
    material: "Material | None" = None


class Source(NamedTuple):
    """A router, how it is to be loaded, and the rows that it is tested on."""

    folder: str
    data: str
    base: str | None
    promise: float | None
    shortlist: int | None
    catalogue: str | None
    near: str | None
    limit: int | None

    def router(self) -> Router:
        policy = None if self.promise is None else {"wrong_call_rate": self.promise}
        return Router.load(self.folder, base=self.base, policy=policy, shortlist=self.shortlist)


def of_predictions(file: str, catalogue: str | None, limit: int | None, wanted: "Wanted | None") -> Measured:
    default = load_catalogue(catalogue) if catalogue else None
    scored = read_predictions(Path(file), default)[:limit]
    material = wanted.of_predictions(file, scored, default) if wanted is not None else None
    return Measured(scored, material=material)


def of_router(
    source: Source, mode: Mode, wanted: "Wanted | None", stop: Callable[[Leaks], NoReturn] | None
) -> Measured | None:
    """Route the test; None on a rank that does not report. Leaks end it by `stop`, unless that is None."""
    ranks, constrained = join(), None
    with together(ranks):
        router = source.router()
        default = load_catalogue(source.catalogue) if source.catalogue else router.catalogue
        examples, leaks = _test(router, source.data, source.near, default, source.limit)
        if ranks.size > 1:
            rows = data_record(source.data, examples)["hash"]
            ranks.agree({"test rows": rows, "adapter": folder_hash(Path(source.folder))})
        if ranks.first and leaks is not None and leaks.failed and stop is not None:
            stop(leaks)
        # Only the first rank reports.
        training = wanted.training(source.near, source.data, router, default) if wanted and ranks.first else None
        with _shown(ranks, len(examples)) as progress:
            scored = evaluate(router, examples, progress, ranks=ranks)
        if mode == "constrained":
            with _shown(ranks, len(examples)) as progress:
                constrained = Constrained.of(scored, evaluate(router, examples, progress, mode=mode, ranks=ranks))
    if not ranks.first:
        return None
    material = None
    if wanted is not None and training is not None:
        files = (source.folder, source.data, source.base)
        material = wanted.of_router(router, scored, training, files, routing_progress)
    return Measured(scored, leaks, constrained, material)


def _test(
    router: Router, data: str, near: str | None, default: "Catalogue", limit: int | None
) -> tuple[list[Example], Leaks | None]:
    """The rows of the test, and what of them the router has seen."""
    examples = read(data, default)[:limit]
    training = read(near, default) if near is not None else None
    if router.manifest is None and training is None:
        return examples, None
    return examples, find_leaks(examples, router.manifest.data if router.manifest else {}, training)


def _shown(ranks: Ranks, total: int) -> AbstractContextManager[Callable[[int], None] | None]:
    """The progress, on the rank that speaks."""
    return routing_progress(total) if ranks.first else nullcontext()


@contextmanager
def routing_progress(total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, a line every tenth of the rows elsewhere; both on stderr."""
    if sys.stderr.isatty():
        with click.progressbar(length=total, label="routing", file=sys.stderr, show_pos=True) as bar:
            yield lambda done: bar.update(done - bar.pos)
        return
    yield lambda done: tell_routed(done, total)


def tell_routed(done: int, total: int) -> None:
    """A line on stderr every tenth of the rows, and at the end."""
    if done % max(1, total // 10) == 0 or done == total:
        click.echo(f"routed {done}/{total}", err=True)
