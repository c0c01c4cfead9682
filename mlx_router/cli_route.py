"""`mlx-router route`."""

import json
import sys
from collections.abc import Iterator

import click

from .calls import Abstention, Decision, Mode, ParseFailure
from .errors import RequestError
from .router import Router

SHORTLIST = "Show K tools of a larger catalogue, by the request's words; 0: all, whatever the recipe says."


@click.command()
@click.argument("folder", type=click.Path(file_okay=False))
@click.argument("text")
@click.option("--json", "as_json", is_flag=True, help="Print the whole decision as JSON, one object a request.")
@click.option("--catalogue", help="Route against another catalogue than the adapter's own.")
@click.option("--mode", type=click.Choice(["greedy", "constrained"]), default="greedy", show_default=True)
@click.option("--cache", type=click.Path(file_okay=False), help="Folder that keeps prefilled catalogues for next time.")
@click.option(
    "--wrong-call-rate",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="RATE",
    help="Act on calls only as this promise allows, instead of the adapter's own policy (docs/calibration.md).",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    default=0.0,
    metavar="P",
    help="Withhold calls whose tool is less probable, and stop decoding there.",
)
@click.option("--skip-reason", is_flag=True, help="Stop at no_tool, without its reason.")
@click.option("--shortlist", type=click.IntRange(min=0), metavar="K", help=SHORTLIST)
@click.option("--base", help="Where the base model lies, if not under the name in the adapter's manifest.")
def route(
    folder: str,
    text: str,
    as_json: bool,
    catalogue: str | None,
    mode: Mode,
    cache: str | None,
    wrong_call_rate: float | None,
    threshold: float,
    skip_reason: bool,
    shortlist: int | None,
    base: str | None,
) -> None:
    """Route TEXT with the adapter or fused model in FOLDER; `-` reads one request a line from stdin.

    Mode constrained holds the answer to the catalogue's grammar: it is always a valid call, and may be a wrong one
    where the default mode would have failed to parse (docs/routing.md).

    Under a policy or a threshold a call that is to be confirmed, or withheld, is printed as such.

    Exits with 0 for a call or no_tool, withheld or not, with 1 if an output was invalid, with 2 if it could not run.

    \b
    Examples:
      mlx-router route adapters/support "Where's my order ORD-1234?"
      cat requests.txt | mlx-router route adapters/support - --json
      mlx-router route adapters/support --mode constrained --cache ~/.cache/mlx-router "Refund ORD-1234, it broke."
    """
    from .interop import load_catalogue

    other = load_catalogue(catalogue) if catalogue else None
    policy = None if wrong_call_rate is None else {"wrong_call_rate": wrong_call_rate}
    router = Router.load(folder, base=base, policy=policy, mode=mode, cache_dir=cache, shortlist=shortlist)
    code = 0
    for number, request in _requests(text):
        try:
            decision = router.route(request, catalogue=other, threshold=threshold, skip_reason=skip_reason)
        except RequestError as error:
            if number is None:
                raise
            # The answers already printed stand; this line gets an error of its own in its place.
            click.echo(f"Error: line {number}: {error.message}", err=True)
            click.echo(json.dumps({"error": error.message, "line": number}) if as_json else "")
            code = 2
            continue
        click.echo(json.dumps(decision.to_json(), ensure_ascii=False) if as_json else _shown(decision))
        if not decision.valid:
            code = max(code, 1)
    if code:
        raise click.exceptions.Exit(code)


def _requests(text: str) -> Iterator[tuple[int | None, str | bytes]]:
    """The requests with their line numbers; blank lines of stdin are passed over."""
    if text != "-":
        yield None, text
        return
    for number, line in enumerate(sys.stdin.buffer, start=1):
        if line.strip():
            yield number, line.rstrip(b"\r\n")


def _shown(decision: Decision) -> str:
    """The decision as the model was asked to write it; the parser's reason for one that is not valid."""
    from .prompts import assistant_text
    from .rendering import one_line

    if isinstance(decision.outcome, ParseFailure):
        return f"invalid output ({decision.outcome.reason}): {one_line(decision.raw)}"
    if isinstance(decision.outcome, Abstention):
        assert decision.confidence is not None, "decoding stops at a known confidence"
        return f"withheld (confidence {decision.confidence:.2f}): {decision.outcome.tool}"
    text = assistant_text(decision.outcome)
    # Whoever reads calls from here acts on them; what is not to be acted on must not look like one.
    words = {"confirm": "to be confirmed", "abstain": "withheld"}.get(str(decision.action))
    if words is None:
        return text
    certain = "" if decision.p_right is None else f" (right with probability {decision.p_right:.2f})"
    return f"{words}{certain}: {text}"
