"""The command line: a group whose commands are loaded when they are called, so that `--help` is quick."""

import difflib
import logging
import sys
from importlib import import_module
from typing import Any

import click

from . import __version__
from .errors import RouterError

# Name: (module, attribute, help in one line). The walk a user follows, in its order.
COMMANDS = {
    "init": ("cli_data", "init_command", "Make a project folder from a catalogue."),
    "catalogue": ("cli_catalogue", "catalogue", "Check a catalogue and show what the model sees of it."),
    "data": ("cli_data", "data_group", "Check and split training and test data."),
    "train": ("cli_train", "train", "Train an adapter on a base model."),
    "eval": ("cli_eval", "eval_", "Measure a router, or anybody's predictions, on test rows."),
    "compare": ("cli_compare", "compare_", "Say whether one run's predictions are better than another's."),
    "stress": ("cli_stress", "stress", "Measure a router on harder tests made from test rows."),
    "calibrate": ("cli_calibrate", "calibrate", "Learn how sure a router's calls are, and when to act on them."),
    "route": ("cli_route", "route", "Route one request, or one a line from stdin."),
    "bench": ("cli_bench", "bench", "Time a router on this machine, and tune it to it."),
    "fuse": ("cli_fuse", "fuse", "Make a standalone model from an adapter, and compare the two."),
    "quantize": ("cli_fuse", "quantize", "Make a smaller standalone model, and compare the two."),
    "doctor": ("cli_doctor", "doctor", "Show the machine, its backend and what to do about weak spots."),
}


class LazyGroup(click.Group):
    """A group that imports a command's module only when that command is wanted."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(f".{module}", __package__), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise click.UsageError(f"No such command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)


@click.group(
    cls=LazyGroup,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "auto_envvar_prefix": "MLX_ROUTER",
        "max_content_width": 100,
    },
)
@click.version_option(__version__, prog_name="mlx-router")
def cli() -> None:
    """Train, measure and run a small model that turns a request into one validated tool call.

    \b
    Examples:
      mlx-router init my-router --from tools.json
      mlx-router train --config my-router/train.yaml
      mlx-router eval my-router/adapter --data my-router/data/test.jsonl
      mlx-router route my-router/adapter "Where's my order ORD-1234?"
    """


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 a gate missed or problems found, 2 could not run, 130 Ctrl-C."""
    # Whoever runs a command sees invalid outputs in its answer; the log is for programs that embed the router.
    logging.getLogger("mlx_router").addHandler(logging.NullHandler())
    try:
        sys.exit(cli.main(standalone_mode=False) or 0)
    except RouterError as error:
        hint = f"\n\nhint: {error.hint}" if error.hint else ""
        click.echo(f"Error: {error.message}{hint}", err=True)
        sys.exit(2)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
