"""The commands that make and examine data: `init`, `data check` and `data split`. Thin; imports wait for their use."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from .prompts import ChatFormat


@click.group("data")
def data_group() -> None:
    """Examine rows before training, and split them.

    \b
    Examples:
      mlx-router data check my-router
      mlx-router data split rows.jsonl --out data
    """


@data_group.command("check")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--catalogue", metavar="FILE", help="Catalogue of rows that have none of their own.")
@click.option("--model", metavar="NAME", help="Base whose tokens to count: `tiny`, a folder, or a name on the hub.")
@click.option("--max-seq-length", type=int, metavar="N", help="Longest row in tokens.  [default: what fits the model]")
@click.option("--max-tokens", type=int, metavar="N", help="Longest answer in tokens.  [default: 128]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def check_command(
    context: click.Context,
    paths: Sequence[str],
    catalogue: str | None,
    model: str | None,
    max_seq_length: int | None,
    max_tokens: int | None,
    as_json: bool,
) -> None:
    """Say what is wrong with data before anything is trained on it.

    PATH is a file, a Hugging Face dataset, a folder with train, valid and test (.jsonl or .jsonl.gz), or a project
    folder, whose train.yaml then gives the catalogue and the limits that are not given here. Exits with 1 if it finds
    errors; warnings and notes are for you to judge.

    \b
    Examples:
      mlx-router data check my-router
      mlx-router data check data/support/test.jsonl --catalogue data/support/catalogue.json
      mlx-router data check train.jsonl valid.jsonl --model tiny --json
    """
    from . import checks, findings, splits
    from .interop import load_catalogue

    sources, config = splits.find(paths)
    limits = checks.Limits()
    if config is not None:
        catalogue = catalogue or config.catalogue
        longest = config.max_seq_length if isinstance(config.max_seq_length, int) else None
        limits = checks.Limits(
            None, config.prompt_style, config.keep_system, longest, config.max_tokens, config.shortlist
        )
    limits = replace(
        limits,
        chat=chat_format(model) if model is not None else None,
        max_seq_length=max_seq_length or limits.max_seq_length or (context_length(model) if model else None),
        max_tokens=max_tokens or limits.max_tokens,
    )
    report = checks.check(sources, load_catalogue(catalogue) if catalogue is not None else None, limits)
    click.echo(json.dumps(report.to_json(), ensure_ascii=False) if as_json else findings.render(report))
    context.exit(1 if report.failed else 0)


@data_group.command("split")
@click.argument("paths", nargs=-1, required=True, metavar="FILE...")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Folder to write to.")
@click.option("--train", type=float, default=0.8, show_default=True, metavar="SHARE", help="Share of train.jsonl.")
@click.option("--valid", type=float, default=0.1, show_default=True, metavar="SHARE", help="Share of valid.jsonl.")
@click.option("--test", type=float, default=0.1, show_default=True, metavar="SHARE", help="Share of test.jsonl.")
@click.option("--seed", type=int, default=0, show_default=True, metavar="N", help="Another seed gives another split.")
@click.option("--force", is_flag=True, help="Overwrite the splits that are there.")
def split_command(
    paths: Sequence[str], out: Path, train: float, valid: float, test: float, seed: int, force: bool
) -> None:
    """Deal rows out to train, valid and test.

    Rows with the same request, or nearly the same, stay together, whatever their catalogues; each tool keeps its
    shares as far as that allows. The same rows and seed give the same split, in whatever order they come.

    \b
    Examples:
      mlx-router data split rows.jsonl --out data
      mlx-router data split a.jsonl b.jsonl.gz --out data --train 0.9 --valid 0.1 --test 0
    """
    from . import splits

    shares = {"train": train, "valid": valid, "test": test}
    click.echo(splits.render(splits.write_splits(paths, out, shares, seed=seed, force=force)))


@click.command("init")
@click.argument("name", type=click.Path(path_type=Path))
@click.option(
    "--from",
    "source",
    required=True,
    metavar="TOOLS",
    help="Tools as JSON (OpenAI, MCP, ours), a Python file or module, or a ready catalogue: `support`, `desktop`.",
)
def init_command(name: Path, source: str) -> None:
    """Make a project folder: catalogue, recipe, README, and rows from templates to edit.

    \b
    Examples:
      mlx-router init my-router --from support
      mlx-router init my-router --from tools.json
      mlx-router init my-router --from my_package.tools:TOOLS
    """
    from . import project

    made = project.create(name, source)
    for message in made.left_out:
        click.echo(f"left out: {message}", err=True)
    click.echo(project.render(made))


def chat_format(name: str) -> "ChatFormat":
    """The chat format of a base, without its weights."""
    from .model import load_tokenizer_only

    return load_tokenizer_only(name)


def context_length(name: str) -> int | None:
    """The longest sequence that a base was made for, in tokens; None if it does not say."""
    from . import model

    config = json.loads((model.find_base(name)[0] / "config.json").read_text(encoding="utf-8"))
    return model.context_length(config)
