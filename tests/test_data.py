"""Reading rows: every form, every place of a catalogue, Hugging Face datasets, and bad rows named together."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from mlx_router.calls import NoTool, ToolCall
from mlx_router.catalogue import Catalogue, Tool
from mlx_router.data import Example, read, scan, with_catalogue, write
from mlx_router.errors import DataError

SUPPORT = Catalogue(
    (
        Tool(
            "track_order",
            "get the status of an order.",
            {"properties": {"order_id": {"type": "string"}}, "required": ["order_id"]},
        ),
        Tool(
            "request_refund",
            "file a refund.",
            {
                "properties": {"order_id": {"type": "string"}, "reason": {"type": "string"}},
                "required": ["order_id", "reason"],
            },
        ),
        Tool("ping", "see whether anyone is there."),
    ),
    "You route customer-support requests to tools.",
)
PING = Catalogue((Tool("ping", "see whether anyone is there."),))
REQUEST = "Where's my order ORD-1234?"
CALL = {"tool": "track_order", "arguments": {"order_id": "ORD-1234"}}
ROW = {"request": REQUEST, "target": CALL}
# The system message of the brief's own example row.
BRIEF = (
    "You route customer-support requests to tools. Available tools:\n"
    "- track_order(order_id: str): get the status of an order.\n"
    "- request_refund(order_id: str, reason: str): file a refund.\n"
    "- escalate(reason: str): hand off to a human agent.\n"
    'If no tool fits, respond with {"tool":"no_tool", "reason":"..."}.'
)


def jsonl(path: Path, *rows: object) -> Path:
    path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8")
    return path


def chat(system: str | None, request: str = REQUEST, answer: object = CALL) -> dict[str, Any]:
    head = [] if system is None else [{"role": "system", "content": system}]
    messages = [
        *head,
        {"role": "user", "content": request},
        {"role": "assistant", "content": json.dumps(answer)},
    ]
    return {"messages": messages}


def problems(path: Path, default: Catalogue | None = SUPPORT) -> list[str]:
    """The messages of the rows that can't be read."""
    return [error.message for error in scan(path, default)[1]]


def test_request_and_target_with_the_default_catalogue(tmp_path: Path) -> None:
    (example,) = read(jsonl(tmp_path / "train.jsonl", ROW), SUPPORT)
    assert example.request == REQUEST
    assert example.target == ToolCall(tool="track_order", arguments={"order_id": "ORD-1234"})
    assert example.catalogue == SUPPORT
    assert example.system is None
    assert example.where == f"{tmp_path / 'train.jsonl'}:1"


def test_the_briefs_own_row_needs_no_other_catalogue(tmp_path: Path) -> None:
    (example,) = read(jsonl(tmp_path / "train.jsonl", chat(BRIEF)))
    assert [tool.name for tool in example.catalogue] == ["track_order", "request_refund", "escalate"]
    assert example.catalogue.instructions == "You route customer-support requests to tools."
    assert example.system == BRIEF
    assert example.messages(keep_system=True)[0]["content"] == BRIEF
    assert example.messages()[0]["content"] != BRIEF


def test_a_rows_system_message_goes_before_the_default(tmp_path: Path) -> None:
    (example,) = read(jsonl(tmp_path / "train.jsonl", chat(BRIEF)), PING)
    assert "escalate" in example.catalogue


def test_a_system_message_in_another_style_takes_the_default(tmp_path: Path) -> None:
    rows = [chat("You are a router. Tools: track orders."), chat(None)]
    examples = read(jsonl(tmp_path / "train.jsonl", *rows), SUPPORT)
    assert [example.catalogue for example in examples] == [SUPPORT, SUPPORT]


def test_tools_of_a_row_in_openai_form_go_first(tmp_path: Path) -> None:
    tools = [{"type": "function", "function": tool.to_json()} for tool in SUPPORT]
    rows = [{**chat(BRIEF), "tools": tools, "catalogue": "nowhere"}, {**ROW, "tools": json.dumps(tools)}]
    examples = read(jsonl(tmp_path / "train.jsonl", *rows))
    assert [[tool.name for tool in example.catalogue] for example in examples] == [
        ["track_order", "request_refund", "ping"]
    ] * 2


@pytest.mark.parametrize("name", ["catalogues.json", "catalogues.json.gz"])
def test_a_catalogue_by_name_beside_the_data(tmp_path: Path, name: str) -> None:
    text = json.dumps({"support": SUPPORT.to_json(), "small": [tool.to_json() for tool in PING]}).encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    rows = [
        {**ROW, "catalogue": "support"},
        {"request": "anyone?", "target": {"tool": "ping", "arguments": {}}, "catalogue": "small"},
    ]
    assert [example.catalogue for example in read(jsonl(tmp_path / "train.jsonl", *rows))] == [SUPPORT, PING]


def test_a_catalogue_by_its_path_from_the_data(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    SUPPORT.save(tmp_path / "catalogue.json")
    (example,) = read(jsonl(tmp_path / "data" / "train.jsonl", {**ROW, "catalogue": "../catalogue.json"}), PING)
    assert example.catalogue == SUPPORT


def test_compressed_rows_and_a_byte_order_mark(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "train.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(json.dumps(ROW) + "\n\n" + json.dumps(ROW) + "\n")
    (tmp_path / "windows.jsonl").write_text(json.dumps(ROW) + "\r\n", encoding="utf-8-sig")
    assert [example.where[-2:] for example in read(tmp_path / "train.jsonl.gz", SUPPORT)] == [":1", ":3"]
    assert len(read(tmp_path / "windows.jsonl", SUPPORT)) == 1


def test_what_else_a_row_says(tmp_path: Path) -> None:
    other = {"tool": "no_tool", "reason": "missing_information: reason"}
    row = {**ROW, "alternatives": [other], "id": 7, "kind": "plain", "template": True}
    (example,) = read(jsonl(tmp_path / "train.jsonl", row), SUPPORT)
    assert example.alternatives == (NoTool(reason="missing_information: reason"),)
    assert (example.id, example.kind, example.template) == ("7", "plain", True)


def test_what_we_write_reads_back_the_same(tmp_path: Path) -> None:
    SUPPORT.save(tmp_path / "catalogue.json")
    call = ToolCall(tool="request_refund", arguments={"reason": "zu groß", "order_id": "A1"})
    no_tool = NoTool(reason="chitchat")
    examples = [
        Example("A1 zurück, zu groß", call, SUPPORT, (no_tool,), id="x", kind="plain", template=True),
        Example("hi", no_tool, SUPPORT),
    ]
    write(examples, tmp_path / "train.jsonl", "catalogue.json")
    lines = (tmp_path / "train.jsonl").read_text(encoding="utf-8").splitlines()
    assert list(json.loads(lines[1])) == ["messages", "catalogue"]
    assert '\\"order_id\\":\\"A1\\",\\"reason\\":\\"zu groß\\"' in lines[0]
    back = read(tmp_path / "train.jsonl")
    assert [(e.request, e.target, e.alternatives, e.id, e.kind, e.template) for e in back] == [
        (e.request, e.target, e.alternatives, e.id, e.kind, e.template) for e in examples
    ]
    assert back[0].messages()[0]["content"] == back[0].system


def test_bad_rows_are_named_together_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    lines = [
        json.dumps(ROW),
        "{not json",
        json.dumps({"request": "hi"}),
        json.dumps({**ROW, "target": {"tool": "track_order", "arguments": {}}}),
        json.dumps({**ROW, "target": {"tool": "fly", "arguments": {}}}),
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read(path, SUPPORT)
    assert "4 row(s)" in caught.value.message
    for number in (2, 3, 4, 5):
        assert f"{path}:{number}: " in caught.value.message
    assert "missing_argument" in caught.value.message
    assert "unknown_tool" in caught.value.message
    assert "data check" in (caught.value.hint or "")


def test_only_the_first_bad_rows_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="… and 10 more"):
        read(jsonl(tmp_path / "train.jsonl", *[{}] * 30), SUPPORT)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([1], "must be a JSON object"),
        ({"messages": [{"role": "user", "content": "hi"}]}, "system, user, assistant"),
        ({"messages": "hi"}, "list of objects"),
        ({"messages": [{"role": "user", "content": None}, {"role": "assistant", "content": "{}"}]}, "text"),
        ({**ROW, "request": " "}, "empty"),
        ({**ROW, "request": "\ud800"}, "surrogate"),
        ({**ROW, "target": {"tool": "track_order", "arguments": {"order_id": "\ud800"}}}, "lone_surrogate"),
        ({**ROW, "target": {"tool": "no_tool"}}, "no_reason"),
        ({**ROW, "alternatives": "x"}, "list of targets"),
        ({**ROW, "alternatives": [{"tool": "fly", "arguments": {}}]}, "an alternative does not fit"),
        ({**ROW, "tools": "[{"}, "no JSON"),
        ({**ROW, "tools": [{"name": "no_tool"}]}, "rename the tool"),
        ({**ROW, "catalogue": "nowhere"}, "neither in catalogues.json"),
        ({**ROW, "catalogue": 3}, "must be a name"),
        ({**ROW, "catalogue": "broken.json"}, "broken.json is no JSON"),
    ],
)
def test_what_is_wrong_with_a_row(tmp_path: Path, row: object, message: str) -> None:
    (tmp_path / "broken.json").write_text("{", encoding="utf-8")
    (tmp_path / "train.jsonl").write_text(json.dumps(row), encoding="utf-8")
    (found,) = problems(tmp_path / "train.jsonl")
    assert message in found


@pytest.mark.parametrize("line", ["[" * 100_000, '{"request": ' + "9" * 5000 + "}"])
def test_json_that_python_will_not_read(tmp_path: Path, line: str) -> None:
    (tmp_path / "train.jsonl").write_text(line, encoding="utf-8")
    assert len(problems(tmp_path / "train.jsonl")) == 1


def test_a_row_without_any_catalogue(tmp_path: Path) -> None:
    (found,) = problems(jsonl(tmp_path / "train.jsonl", ROW), None)
    assert "no catalogue" in found


def test_files_that_are_no_rows(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text("[]", encoding="utf-8")
    (tmp_path / "latin.jsonl").write_bytes(b'{"request": "caf\xe9"}')
    (tmp_path / "not.jsonl.gz").write_bytes(b"no gzip")
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(json.dumps(ROW).encode())[:-12])
    (tmp_path / "empty.jsonl").touch()
    for name in ("rows.json", "latin.jsonl", "not.jsonl.gz", "cut.jsonl.gz", "empty.jsonl", "absent.jsonl"):
        with pytest.raises(DataError, match=name.replace(".", r"\.")):
            read(tmp_path / name, SUPPORT)


def test_the_same_rows_against_another_catalogue(tmp_path: Path) -> None:
    examples = read(jsonl(tmp_path / "train.jsonl", ROW), SUPPORT)
    assert [example.catalogue for example in with_catalogue(examples, PING)] == [PING]


def test_a_hugging_face_dataset_from_a_folder(tmp_path: Path) -> None:
    import datasets

    refund = {"tool": "request_refund", "arguments": {"order_id": "A1", "reason": "broken"}}
    none = {"tool": "no_tool", "reason": "chitchat"}
    rows = [
        {**ROW, "kind": "plain", "alternatives": [refund]},
        {"request": "A1 is broken, money back", "target": refund, "kind": None, "alternatives": None},
        {"request": "hi", "target": none, "kind": None, "alternatives": []},
        {"request": "anyone there?", "target": {"tool": "ping", "arguments": {}}, "kind": None, "alternatives": None},
    ]
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "set")
    examples = read(tmp_path / "set", SUPPORT)
    # Arrow filled every target up to one shape with nulls; they are gone.
    assert [example.target.model_dump() for example in examples] == [
        {"tool": "track_order", "arguments": {"order_id": "ORD-1234"}},
        refund,
        none,
        {"tool": "ping", "arguments": {}},
    ]
    assert [example.kind for example in examples] == ["plain", None, None, None]
    assert [len(example.alternatives) for example in examples] == [1, 0, 0, 0]
    assert examples[1].where == f"{tmp_path / 'set'}#train:2"


def test_a_hugging_face_dataset_with_splits_messages_and_tools_as_text(tmp_path: Path) -> None:
    import datasets

    tools = json.dumps([{"type": "function", "function": tool.to_json()} for tool in SUPPORT])
    train = datasets.Dataset.from_list([{**chat(BRIEF), "tools": tools}, {**chat(BRIEF), "tools": None}])
    test = datasets.Dataset.from_list([{"request": REQUEST, "target": json.dumps(CALL), "tools": tools}])
    datasets.DatasetDict({"train": train, "test": test}).save_to_disk(tmp_path / "set")
    assert ["ping" in example.catalogue for example in read(tmp_path / "set")] == [True, False]
    (example,) = read(f"{tmp_path / 'set'}#test")
    assert example.target == ToolCall(**CALL)
    with pytest.raises(DataError, match="no split 'valid'; it has train, test"):
        read(f"{tmp_path / 'set'}#valid")


def test_a_folder_that_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="neither a file nor a dataset"):
        read(tmp_path, SUPPORT)
    with pytest.raises(DataError, match="does not exist"):
        read(tmp_path / "absent", SUPPORT)
