"""What the help and the documents say is so: commands, flags, fields, metrics, links, and the README's programs."""

import logging
import os
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from conftest import ScriptedDecoder

from mlx_router.cli import COMMANDS, cli
from mlx_router.config import TrainConfig

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "data" / "README.md"]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in DOCUMENTS if path.is_file()}



def commands(group: click.Group = cli, *above: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command with its words, groups included."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*above, name), command
        if isinstance(command, click.Group):
            yield from commands(command, *above, name)


ALL = {" ".join(words): command for words, command in commands()}


def help_of(command: click.Command) -> str:
    return command.get_help(click.Context(command, info_name="mlx-router", max_content_width=200))


def examples(command: click.Command) -> list[str]:
    """The lines of the help's `Examples:` block."""
    block = help_of(command).partition("Examples:\n")[2].split("\n\n")[0]
    return [line.strip() for line in block.splitlines() if line.strip()]


def read_command(line: str, *, whole: bool = True) -> None:
    """Take a line of a shell apart as the command line does; raises what a user would see as an error.

    Without `whole`, arguments may be missing, as they are in the middle of a sentence.
    """
    words = shlex.split(line.rpartition("| ")[2] if "| mlx-router" in line else line, comments=True)
    assert words.pop(0) == "mlx-router"
    command: click.Command = cli
    context = click.Context(cli, info_name="mlx-router")
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name = words.pop(0)
        found = command.get_command(context, name)
        assert found is not None, f"there is no command {name!r}: {line}"
        command, context = found, click.Context(found, parent=context, info_name=name)
    if whole and not isinstance(command, click.Group):
        command.make_context(context.info_name, words)
    else:
        command.make_parser(context).parse_args(words)


def shell_lines(text: str) -> list[str]:
    """The `mlx-router` lines of a document's code, fenced or indented."""
    fenced = [
        line for language, code in FENCED.findall(text) if language in ("", "sh", "bash") for line in code.splitlines()
    ]
    indented = [line for line in FENCED.sub("", text).splitlines() if line.startswith("    ")]
    return [line.strip() for line in (*fenced, *indented) if re.search(r"(^|\| )mlx-router ", line.strip())]


def python_blocks() -> list[str]:
    return [code for language, code in FENCED.findall(TEXTS["README.md"]) if language == "python"]


@pytest.mark.parametrize("name", ALL)
def test_every_command_has_help_with_a_sentence_and_examples(name: str) -> None:
    paragraphs = (ALL[name].help or "").replace("\b", "").split("\n\n")
    first = paragraphs[0].strip()

    assert first[0].isupper() and first.endswith("."), first
    assert len(first.split()) > 3
    shown = examples(ALL[name])
    assert shown, "there are no examples"
    assert any(f"mlx-router {name} " in line + " " for line in shown)


@pytest.mark.parametrize(("name", "line"), [(name, line) for name in ALL for line in examples(ALL[name])])
def test_examples_in_the_help_can_be_run(name: str, line: str) -> None:
    read_command(line)


def test_the_commands_own_examples_can_be_run() -> None:
    shown = examples(cli)
    assert len(shown) >= 4
    for line in shown:
        read_command(line)


@pytest.mark.parametrize("name", ALL)
def test_every_option_has_help(name: str) -> None:
    options = [option for option in ALL[name].params if isinstance(option, click.Option)]
    described = {option.name for option in options if option.help}
    # What a choice or a number means stands in its metavar.
    plain = {option.name for option in options if isinstance(option.type, click.Choice)}
    assert {option.name for option in options} - described - plain == set()


def test_the_list_of_commands_says_what_each_command_says() -> None:
    assert set(COMMANDS) == {name for name in ALL if " " not in name}
    for _, _, text in COMMANDS.values():
        assert text[0].isupper() and text.endswith(".")


@pytest.mark.parametrize("name", [name for name in ALL if not isinstance(ALL[name], click.Group)])
def test_every_command_is_in_the_documents(name: str) -> None:
    assert any(re.search(rf"mlx-router {name}\b|`{name}[` ]", text) for text in TEXTS.values())


def test_there_are_command_lines_in_the_documents() -> None:
    assert len(shell_lines(TEXTS["README.md"])) >= 7
    assert len(shell_lines(TEXTS["docs/data.md"])) >= 5


@pytest.mark.parametrize(
    ("document", "line"), [(document, line) for document, text in TEXTS.items() for line in shell_lines(text)]
)
def test_command_lines_in_the_documents_can_be_run(document: str, line: str) -> None:
    read_command(line)


@pytest.mark.parametrize(
    ("document", "line"),
    [(document, line) for document, text in TEXTS.items() for line in re.findall(r"`(mlx-router [^`\n]+)`", text)],
)
def test_commands_named_in_a_sentence_exist(document: str, line: str) -> None:
    read_command(line, whole=False)


def test_the_demos_commands_can_be_run() -> None:
    script = (ROOT / "scripts" / "demo.sh").read_text(encoding="utf-8").splitlines()
    lines = [line.strip() for line in script if line.strip().startswith('"$router" ')]
    assert len(lines) >= 3
    for line in lines:
        read_command(re.split(r" \|\| | \$\{", line.replace('"$router"', "mlx-router"))[0])


@pytest.mark.parametrize("document", TEXTS)
def test_links_lead_somewhere(document: str) -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", TEXTS[document])
    assert [target for target in targets if not (ROOT / document).parent.joinpath(target).exists()] == []


def test_every_field_of_a_recipe_is_described() -> None:
    table = dict(re.findall(r"^\| `(\w+)` \| (.+)$", TEXTS["docs/config.md"], re.MULTILINE))

    assert list(table) == list(TrainConfig.model_fields)
    for name, field in TrainConfig.model_fields.items():
        default = "required" if field.is_required() else "none" if field.default is None else f"`{field.default}`"
        assert table[name] == f"{default} | {field.description} |", name


def test_every_metric_is_defined() -> None:
    from mlx_router.calls import ToolCall
    from mlx_router.metrics import FOUR, Row, measure

    call = ToolCall(tool="a", arguments={})
    names = measure([Row(call, call)])
    assert [name for name in names if f"`{name}`" not in TEXTS["docs/metrics.md"]] == []
    assert [name for name in FOUR if f"`{name}`" not in TEXTS["README.md"]] == []


@pytest.mark.parametrize("code", [code for code in python_blocks() if "def handle(" not in code])
def test_the_readmes_programs_run(code: str, scripted: ScriptedDecoder, tmp_path: Path) -> None:
    scripted.otherwise = '{"tool":"no_tool","reason":"chitchat"}'
    here = Path.cwd()
    try:
        os.chdir(tmp_path)
        exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})
    finally:
        os.chdir(here)


def test_the_readmes_loop_handles_every_outcome(scripted: ScriptedDecoder, caplog: pytest.LogCaptureFixture) -> None:
    """The loop that users copy: it calls a tool for a valid call, and for nothing else."""
    blocks = [code for code in python_blocks() if "def handle(" in code]
    assert len(blocks) == 1
    scripted.answers.update(
        {
            "Where is ORD-1?": '{"tool":"track_order","arguments":{"order_id":"ORD-1"}}',
            "Hi!": '{"tool":"no_tool","reason":"chitchat"}',
            "I want a refund.": '{"tool":"no_tool","reason":"missing_information: order_id, reason"}',
            "What?": '{"tool":"track_order","arguments":{}}',
        }
    )
    program: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(blocks[0], "README.md", "exec"), program)
    handle: Callable[..., Any] = program["handle"]
    tools = {"track_order": lambda order_id: f"tracked {order_id}"}

    def routed(request: str) -> Any:
        return handle(request, tools, lambda: "rephrase", lambda *said: ("answer", *said))

    assert routed("Where is ORD-1?") == "tracked ORD-1"
    assert routed("Hi!")[:2] == ("answer", "chitchat")
    assert routed("I want a refund.")[:2] == ("answer", "missing_information: order_id, reason")
    with caplog.at_level(logging.WARNING):
        assert routed("What?") == "rephrase"
    assert any("missing_argument" in record.getMessage() for record in caplog.records)
