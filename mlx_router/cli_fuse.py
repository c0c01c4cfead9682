"""`mlx-router fuse` and `mlx-router quantize`: standalone models, each held against what it was made from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .cli_compare import render
from .cli_measure import routing_progress
from .comparison import Comparison, compare
from .data import Example, read
from .errors import UsageError
from .evaluation import Scored, evaluate
from .interop import load_catalogue
from .leaks import find_leaks
from .manifest import Parity, read_manifest
from .pairing import pair_up
from .parity import TOLERANCE, judge, rows_at_hand
from .rendering import json_text
from .router import Router

if TYPE_CHECKING:
    from .fusing import Made

NOTHING = (
    "nothing was compared: whether {out} decides as {folder} does is not known.\n"
    "To find out, make it again with --data TEST, the path of test rows"
)


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The arguments and flags that both commands have."""
    options = [
        click.argument("folder", type=click.Path(file_okay=False)),
        click.argument("out", type=click.Path(file_okay=False)),
        click.option("--data", help="Test rows to compare on; without it the recipe's own, if they are at hand."),
        click.option("--catalogue", help="Catalogue of the rows that carry none."),
        click.option("--limit", type=click.IntRange(min=1), help="Only the first rows."),
        click.option("--no-compare", is_flag=True, help="Compare nothing."),
        click.option(
            "--tolerance",
            type=click.FloatRange(0, 1),
            default=TOLERANCE,
            show_default=True,
            help="By how much a decision metric may be worse.",
        ),
        click.option("--rows", default=10, show_default=True, help="How many changed rows to show."),
        click.option("--base", help="Where the base model lies, if not under the name in the adapter's manifest."),
        click.option("--overwrite", is_flag=True, help="Replace what is in OUT."),
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@_options
@click.option(
    "--dequantize/--keep-quantized",
    default=True,
    show_default=True,
    help="Of a quantized base: write full-precision weights, or round to its bits, which loses part of the adapter.",
)
def fuse(folder: str, out: str, overwrite: bool, dequantize: bool, **flags: Any) -> None:
    """Make a standalone model in OUT from the adapter in FOLDER; Router.load takes either.

    Both route the same test rows. If the model decides worse than the adapter by more than --tolerance (exact match,
    tool name, wrong calls or false calls), the exit code is 1, and OUT is marked so that it is not loaded.

    \b
    Examples:
      mlx-router fuse adapters/support fused/support --data data/support/test.jsonl
    """
    from .fusing import fuse_adapter

    gate = _Gate(Path(folder), Path(out), **flags)
    made = fuse_adapter(
        gate.folder,
        gate.out,
        keep_quantized=not dequantize,
        base=gate.base,
        overwrite=overwrite,
        judge=gate.judge if gate.examples else None,
    )
    gate.end(made)


@click.command()
@_options
@click.option("--bits", type=click.Choice(["4", "8"]), required=True, help="Bits a weight.")
@click.option(
    "--group-size", type=click.Choice(["32", "64", "128"]), default="64", show_default=True, help="Weights a scale."
)
def quantize(folder: str, out: str, overwrite: bool, bits: str, group_size: str, **flags: Any) -> None:
    """Make a standalone model with small weights in OUT from the adapter, or the fused model, in FOLDER.

    Both route the same test rows. If the new model decides worse than FOLDER by more than --tolerance (exact match,
    tool name, wrong calls or false calls), the exit code is 1, and OUT is marked so that it is not loaded.

    \b
    Examples:
      mlx-router quantize adapters/support quantized/support --bits 4 --data data/support/test.jsonl
      mlx-router quantize fused/support quantized/support --bits 8 --group-size 32 --data test.jsonl
    """
    from .fusing import quantize_router

    gate = _Gate(Path(folder), Path(out), **flags)
    made = quantize_router(
        gate.folder,
        gate.out,
        bits=int(bits),
        group_size=int(group_size),
        base=gate.base,
        overwrite=overwrite,
        judge=gate.judge if gate.examples else None,
    )
    gate.end(made)


@dataclass
class _Gate:
    """The rows that both models route, and what came of it."""

    folder: Path
    out: Path
    data: str | None
    catalogue: str | None
    limit: int | None
    no_compare: bool
    tolerance: float
    rows: int
    base: str | None
    as_json: bool
    examples: list[Example] = field(default_factory=list)
    source: str = ""
    found: Comparison | None = None

    def __post_init__(self) -> None:
        """Read the rows first: making a model takes too long to find out at its end."""
        if self.no_compare:
            if self.data:
                raise UsageError("--no-compare and --data do not go together")
            return
        manifest = read_manifest(self.folder)
        default = load_catalogue(self.catalogue) if self.catalogue else manifest.read_catalogue()
        if self.data:
            self.source, self.examples = self.data, read(self.data, default)[: self.limit]
        elif (at_hand := rows_at_hand(self.folder, manifest, default)) is not None:
            self.source, self.examples = str(at_hand[0]), at_hand[1][: self.limit]
            click.echo(f"comparing on {self.source}, which the recipe names; --data gives others", err=True)
        else:
            return
        seen = len(find_leaks(self.examples, manifest.data).train)
        if seen:
            click.echo(f"note: {seen} of {len(self.examples)} rows were trained on; they show less of a loss", err=True)

    def judge(self, made: Path) -> Parity:
        """Route the rows with both, one after the other, and compare row by row."""
        with routing_progress(2 * len(self.examples)) as progress:
            before = self._route(self.folder, self.base, progress)
            after = self._route(made, None, lambda done: progress(len(self.examples) + done))
        self.found = compare(pair_up(before, after))
        return judge(self.found, self.source, self.examples, self.tolerance)

    def _route(self, folder: Path, base: str | None, progress: Callable[[int], None]) -> list[Scored]:
        return evaluate(Router.load(folder, base=base), self.examples, progress)

    def end(self, made: "Made") -> None:
        """Show what was found; exit with 1 if the model failed."""
        parity = made.manifest.parity
        if self.as_json:
            click.echo(json_text(self._json(parity)))
        elif self.found is not None:
            about = f"A  {self.folder}\nB  {self.out}\n\n{render(self.found, self.rows)}"
            click.echo(f"{about}\n\n{_texts(self.found)}")
        for note in made.notes:
            click.echo(f"note: {note}", err=True)
        if parity is None:
            click.echo(NOTHING.format(out=self.out, folder=self.folder), err=True)
        elif parity.failed:
            _refuse(parity.problems, self.out)
        click.echo(f"wrote {self.out}", err=True)

    def _json(self, parity: Parity | None) -> dict[str, Any]:
        return {
            "folder": str(self.folder),
            "out": str(self.out),
            "parity": None if parity is None else parity.model_dump(mode="json"),
            "comparison": None if self.found is None else self.found.to_json(),
        }


def _texts(found: Comparison) -> str:
    """How many rows say the same in other words: another reason, say, or another invalid output."""
    changed = sum(pair.changed for pair in found.pairs)
    different = sum(pair.a.output != pair.b.output for pair in found.pairs)
    return f"{different} of {len(found.pairs)} outputs differ in their text, {changed} in what they come to"


def _refuse(problems: Sequence[str], out: Path) -> None:
    for problem in problems:
        click.echo(f"lost: {problem}", err=True)
    click.echo(
        f"Error: {out} decides worse than what it was made from; it is marked as failed and will not be loaded\n\n"
        "hint: route with the adapter unfused, take more bits, or, if you accept the loss, make it again with a higher "
        "--tolerance and --overwrite",
        err=True,
    )
    raise click.exceptions.Exit(1)
