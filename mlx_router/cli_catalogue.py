"""`mlx-router catalogue`: check one, and show what the model sees of it."""

import json
from pathlib import Path
from typing import Any

import click

from .catalogue import Catalogue
from .errors import RouterError
from .interop import inspect_json, load_catalogue, read_json
from .prompts import Style, system_message
from .schemas import Problem


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def catalogue() -> None:
    """Check a catalogue and show what the model sees of it.

    \b
    Examples:
      mlx-router catalogue check tools.json
      mlx-router catalogue convert mcp-tools.json catalogue.json
    """


@catalogue.command()
@click.argument("source")
@click.option("--model", default="tiny", show_default=True, help="Base whose tokens are counted: name or folder.")
@click.option("--style", type=click.Choice(["signature", "json_schema"]), default="signature", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def check(source: str, model: str, style: Style, as_json: bool) -> None:
    """Name every problem of a catalogue at once, and print its system message with its number of tokens.

    SOURCE is a .json file (ours, OpenAI tools, MCP tools/list), a .py file, or module:attribute. Exits with 1 if the
    catalogue can't be used.

    \b
    Examples:
      mlx-router catalogue check data/support/catalogue.json
      mlx-router catalogue check my_tools.py --model mlx-community/Qwen3-0.6B-4bit
    """
    found, problems = _inspect(source)
    errors = sum(problem.level == "error" for problem in problems)
    message = system_message(found, style) if found is not None else None
    tokens, untold = _count_tokens(message, model) if message is not None else (None, None)
    if as_json:
        click.echo(json.dumps(_as_json(found, problems, message, tokens), ensure_ascii=False, indent=2))
    else:
        for problem in problems:
            click.echo(f"{problem.level}: {problem}")
        click.echo(f"{errors} error(s), {len(problems) - errors} warning(s)")
        if message is not None:
            counted = f"{tokens} tokens for {model}" if tokens is not None else f"tokens not counted: {untold}"
            click.echo(f"\nSystem message ({counted}):\n\n{message}")
    if errors:
        raise click.exceptions.Exit(1)


@catalogue.command()
@click.argument("source")
@click.argument("target", type=click.Path(dir_okay=False))
def convert(source: str, target: str) -> None:
    """Write a catalogue of any known form as our canonical file.

    \b
    Examples:
      mlx-router catalogue convert openai-tools.json catalogue.json
      mlx-router catalogue convert my_package.tools:TOOLS catalogue.json
    """
    load_catalogue(source).save(Path(target))
    click.echo(f"wrote {target}", err=True)


def _inspect(source: str) -> tuple[Catalogue | None, list[Problem]]:
    if source.endswith(".json"):
        return inspect_json(read_json(Path(source)))
    found = load_catalogue(source)
    return found, found.problems()


def _count_tokens(message: str, model: str) -> tuple[int | None, str | None]:
    """Tokens of the system message for a model, or why they can't be counted."""
    from .model import load_tokenizer_only

    try:
        chat = load_tokenizer_only(model)
    except RouterError as error:
        return None, error.message
    return len(chat.tokenizer.encode(message, add_special_tokens=False)), None


def _as_json(
    found: Catalogue | None, problems: list[Problem], message: str | None, tokens: int | None
) -> dict[str, Any]:
    return {
        "tools": [tool.name for tool in found] if found is not None else None,
        "hash": found.hash if found is not None else None,
        "problems": [vars(problem) for problem in problems],
        "system_message": message,
        "tokens": tokens,
    }
