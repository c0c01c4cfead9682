"""`data check`: every kind of finding, from real files, and what a user sees of it."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mlx_router.catalogue import Catalogue, Tool
from mlx_router.checks import Limits, check
from mlx_router.cli_data import data_group
from mlx_router.errors import CatalogueError, DataError, ModelError
from mlx_router.findings import KINDS, Finding, Report, render
from mlx_router.prompts import system_message
from mlx_router.splits import find

SUPPORT = Catalogue(
    (
        Tool(
            "track_order",
            "get the status of an order.",
            {"properties": {"order_id": {"type": "string"}}, "required": ["order_id"]},
        ),
        Tool("escalate", "hand off to a human.", {"properties": {"reason": {"type": "string"}}}),
    )
)
OTHER = Catalogue((*SUPPORT.tools, Tool("ping", "see whether anyone is there.")))


def track(request: str, order_id: str, **more: Any) -> dict[str, Any]:
    return {"request": request, "target": {"tool": "track_order", "arguments": {"order_id": order_id}}, **more}


def escalate(request: str, reason: str, **more: Any) -> dict[str, Any]:
    return {"request": request, "target": {"tool": "escalate", "arguments": {"reason": reason}}, **more}


def refuse(request: str, reason: str = "chitchat", **more: Any) -> dict[str, Any]:
    return {"request": request, "target": {"tool": "no_tool", "reason": reason}, **more}


CLEAN = [
    track("Where is ORD-1?", "ORD-1"),
    track("any news about ORD-2", "ORD-2"),
    track("status of ORD-3 please", "ORD-3"),
    escalate("get me a person, the parcel is wet", "the parcel is wet"),
    escalate("I need a human: nobody answers", "nobody answers"),
    refuse("hi there"),
]


def write(folder: Path, **splits: list[dict[str, Any]]) -> Path:
    SUPPORT.save(folder / "catalogue.json")
    OTHER.save(folder / "other.json")
    for name, rows in splits.items():
        text = "".join(f"{json.dumps(row)}\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return folder


def report(folder: Path, limits: Limits | None = None, **splits: list[dict[str, Any]]) -> Report:
    return check(find([str(write(folder, **splits))])[0], SUPPORT, limits)


def found(code: str, result: Report) -> list[Finding]:
    """The findings of one kind, which must have the kind's level."""
    findings = [finding for finding in result.findings if finding.code == code]
    assert findings, [finding.code for finding in result.findings]
    assert {finding.level for finding in findings} == {KINDS[code][0]}
    return findings


def line(finding: Finding) -> str:
    return finding.where.rpartition("/")[2]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(data_group, ["check", *map(str, arguments)])


def test_clean_rows_give_no_findings(tmp_path: Path) -> None:
    result = report(tmp_path, train=CLEAN)
    assert result.findings == ()
    assert not result.failed
    (split,) = result.splits
    assert (split.rows, split.no_tool, split.unusable, split.template) == (6, 1, 0, 0)
    assert split.no_tool_share == pytest.approx(1 / 6)
    assert split.tools == {"track_order": 3, "escalate": 2, "no_tool": 1}
    assert split.longest is None


def test_rows_that_do_not_fit_the_catalogue(tmp_path: Path) -> None:
    bad = [{**CLEAN[0], "target": {"tool": "fly", "arguments": {}}}, {"request": "x"}]
    result = report(tmp_path, train=[*CLEAN, *bad])
    first, second = found("unusable_row", result)
    assert (line(first), line(second)) == ("train.jsonl:7", "train.jsonl:8")
    assert "unknown_tool" in first.message
    assert result.failed
    assert result.splits[0].unusable == 2


def test_a_split_without_rows(tmp_path: Path) -> None:
    result = report(tmp_path, train=CLEAN, valid=[])
    assert [finding.split for finding in found("no_rows", result)] == ["valid"]


def test_the_share_of_no_tool_rows_counts_in_training_only(tmp_path: Path) -> None:
    result = report(tmp_path, train=CLEAN[:5], valid=[refuse("good morning")])
    (finding,) = found("no_tool_share", result)
    assert (finding.split, finding.message) == (
        "train",
        "0.0% of the rows; outside 10% to 20% a router learns to call always",
    )
    (finding,) = found("no_tool_share", report(tmp_path, train=[*CLEAN, refuse("bye now"), refuse("good morning")]))
    assert "37.5%" in finding.message


def test_tools_without_rows(tmp_path: Path) -> None:
    result = report(tmp_path, train=[*CLEAN, refuse("good evening", catalogue="other.json")])
    assert [finding.message for finding in found("tool_without_rows", result)] == ["ping has no rows"]


@pytest.mark.parametrize(
    ("row", "code"),
    [
        (track("where is ord-9?", "ORD-9"), "value_not_in_request"),
        (escalate("a human, because it broke", "because it broke"), "leading_because"),
        (refuse("good evening", "greeting"), "unknown_reason"),
        (refuse("track it", "missing_information"), "unnamed_parameter"),
        (refuse("track it", "missing_information: order"), "unknown_parameter"),
        (track("ORD-8 where", "ORD-8", alternatives=[track("", "ORD-8")["target"]]), "idle_alternative"),
    ],
)
def test_broken_rules_are_warnings_with_their_line(tmp_path: Path, row: dict[str, Any], code: str) -> None:
    result = report(tmp_path, train=[*CLEAN, row])
    assert [line(finding) for finding in found(code, result)] == ["train.jsonl:7"]
    assert not result.failed


def test_defaults_and_the_order_of_parameters(tmp_path: Path) -> None:
    schema = {"properties": {"to": {"type": "string"}, "copies": {"type": "integer", "default": 1}}, "required": ["to"]}
    tools = [Tool("send", "send it.", schema).to_json()]
    call = {"tool": "send", "arguments": {"to": "Bo", "copies": 1}}
    rows = [{"request": "send it to Bo", "target": call}, refuse("send", "missing_information: copies, to")]
    result = report(tmp_path, train=[{**row, "tools": tools} for row in rows])
    assert line(found("default_written_out", result)[0]) == "train.jsonl:1"
    assert line(found("parameter_order", result)[0]) == "train.jsonl:2"


def test_one_value_in_two_spellings(tmp_path: Path) -> None:
    rows = [track("where is number one", "ORD-1"), track("where's the first one", "ord 1")]
    (finding,) = found("two_spellings", report(tmp_path, train=[*CLEAN, *rows]))
    assert line(finding) == "train.jsonl:8"
    assert "'ord 1' here and 'ORD-1' at" in finding.message


def test_duplicates_within_a_split(tmp_path: Path) -> None:
    near = track("status of  ORD-3, please!", "ORD-3")
    other = {**CLEAN[1], "catalogue": "other.json"}
    result = report(tmp_path, train=[*CLEAN, CLEAN[0], near, other])
    (duplicate,) = found("duplicate", result)
    assert line(duplicate) == "train.jsonl:7"
    assert "train.jsonl:1 too" in duplicate.message
    assert [line(finding) for finding in found("near_duplicate", result)] == ["train.jsonl:8"]


def test_the_same_request_with_another_target(tmp_path: Path) -> None:
    result = report(tmp_path, train=[*CLEAN, refuse("Where is ORD-1?", "no_matching_tool")])
    (finding,) = found("conflict", result)
    assert (line(finding), finding.message.endswith("train.jsonl:1")) == ("train.jsonl:7", True)
    again = refuse("hi there", "out_of_scope")
    assert [line(finding) for finding in found("conflict", report(tmp_path, train=[*CLEAN, again]))] == [
        "train.jsonl:7"
    ]


def test_an_alternative_is_no_conflict(tmp_path: Path) -> None:
    row = {**CLEAN[3], "target": {"tool": "escalate", "arguments": {}}, "alternatives": [CLEAN[3]["target"]]}
    assert {finding.code for finding in report(tmp_path, train=[*CLEAN, row]).findings} == {"duplicate"}


def test_the_same_request_in_two_splits(tmp_path: Path) -> None:
    test = [CLEAN[0], refuse("any news about ORD-2"), {**CLEAN[2], "catalogue": "other.json"}, refuse("Hi, there!")]
    result = report(tmp_path, train=CLEAN, test=test)
    first, second = found("leak", result)
    assert (first.split, line(first)) == ("test", "test.jsonl:1")
    assert first.message.endswith("train.jsonl:1")
    assert second.message.endswith("train.jsonl:2, with another target")
    assert [line(finding) for finding in found("leak_other_catalogue", result)] == ["test.jsonl:3"]
    assert [line(finding) for finding in found("near_leak", result)] == ["test.jsonl:4"]
    assert result.failed


def test_several_files_may_make_one_split(tmp_path: Path) -> None:
    folder = write(tmp_path, train=CLEAN, more_train=CLEAN[:1])
    sources, _ = find([str(folder / "train.jsonl"), str(folder / "more_train.jsonl")])
    result = check(sources, SUPPORT)
    assert [split.rows for split in result.splits] == [7]
    assert [finding.code for finding in result.findings] == ["duplicate"]


def test_system_texts_that_are_not_the_rendered_one(tmp_path: Path) -> None:
    answer = {"role": "assistant", "content": json.dumps(CLEAN[0]["target"])}
    texts = [
        system_message(SUPPORT),
        system_message(SUPPORT, "json_schema"),
        system_message(SUPPORT).replace("an order", "a parcel"),
    ]
    rows = [
        {
            "messages": [
                {"role": "system", "content": text},
                {"role": "user", "content": f"{'really ' * number}where is ORD-1"},
                answer,
            ],
            "catalogue": "catalogue.json",
        }
        for number, text in enumerate(texts)
    ]
    result = report(tmp_path, train=rows)
    (finding,) = found("system_text", result)
    assert line(finding) == "train.jsonl:3"
    assert "a parcel" in finding.message
    kept = check(find([str(tmp_path)])[0], SUPPORT, Limits(keep_system=True))
    assert "system_text" not in {finding.code for finding in kept.findings}


def test_rows_from_templates(tmp_path: Path) -> None:
    result = report(tmp_path, train=[*CLEAN[:5], {**CLEAN[5], "template": True}])
    (finding,) = found("template", result)
    assert finding.message.startswith("1 of 6 rows, the first at")
    assert result.splits[0].template == 1


def test_lengths_in_tokens(tmp_path: Path) -> None:
    folder = write(tmp_path, train=[*CLEAN, escalate(f"a human! {'very ' * 60}wet", f"{'very ' * 60}wet")])
    result = run(folder, "--catalogue", folder / "catalogue.json", "--model", "tiny", "--json")
    longest = json.loads(result.stdout)["splits"][0]["longest"]
    assert longest[0]["where"].endswith("train.jsonl:7")
    tokens, answer = longest[0]["tokens"], longest[0]["answer_tokens"]
    assert tokens > longest[1]["tokens"] > longest[1]["answer_tokens"]
    at_limit = run(
        *(folder, "--catalogue", folder / "catalogue.json", "--model", "tiny"),
        *("--max-seq-length", tokens, "--max-tokens", answer),
    )
    assert at_limit.exit_code == 0
    beyond = run(
        *(folder, "--catalogue", folder / "catalogue.json", "--model", "tiny", "--json"),
        *("--max-seq-length", tokens - 1, "--max-tokens", answer - 1),
    )
    assert beyond.exit_code == 1
    findings = json.loads(beyond.stdout)["findings"]
    assert [(finding["code"], finding["where"].rpartition("/")[2]) for finding in findings] == [
        ("cut_answer", "train.jsonl:7"),
        ("long_answer", "train.jsonl:7"),
    ]


def test_the_text_for_a_terminal(tmp_path: Path) -> None:
    rows = [track(f"where is parcel {number}", f"X{number}") for number in range(15)]
    folder = write(tmp_path, train=[*CLEAN, *rows])
    result = run(folder, "--catalogue", folder / "catalogue.json")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["split", "rows", "no_tool", "template", "unusable", "from"]
    assert lines[1].split()[:4] == ["train", "21", "1", "4.8%"]
    assert "track_order       18" in lines
    assert "lengths were not checked: they need a model's tokenizer (--model)" in lines
    assert "  values that are not in the request letter for letter (15, value_not_in_request)" in lines
    assert "    … and 5 more" in lines
    assert lines[-1] == "0 errors, 16 warnings and 0 notes"


def test_the_json(tmp_path: Path) -> None:
    folder = write(tmp_path, train=CLEAN, test=CLEAN[:1])
    result = run(folder, "--catalogue", folder / "catalogue.json", "--json")
    assert result.exit_code == 1
    value = json.loads(result.stdout)
    assert (value["ok"], value["errors"], value["lengths_checked"]) == (False, 1, False)
    assert value["splits"][0]["tools"] == {"track_order": 3, "escalate": 2, "no_tool": 1}
    assert value["findings"][0] == {
        "level": "error",
        "code": "leak",
        "split": "test",
        "where": f"{folder}/test.jsonl:1",
        "message": f"'Where is ORD-1?' is in train at {folder}/train.jsonl:1",
    }


def test_a_project_folder_brings_its_catalogue_and_limits(tmp_path: Path) -> None:
    write(tmp_path, rows=CLEAN)
    recipe = "catalogue: catalogue.json\ntrain: rows.jsonl\nmax_tokens: 12\n"
    (tmp_path / "train.yaml").write_text(recipe, encoding="utf-8")
    assert run(tmp_path).exit_code == 0
    assert run(tmp_path, "--model", "tiny").exit_code == 1
    assert run(tmp_path, "--model", "tiny", "--max-tokens", 100).exit_code == 0
    assert run(tmp_path, "--model", "tiny", "--max-tokens", 100, "--max-seq-length", 20).exit_code == 1


def test_a_hugging_face_dataset_with_splits(tmp_path: Path) -> None:
    import datasets

    parts = {"train": datasets.Dataset.from_list(CLEAN), "validation": datasets.Dataset.from_list(CLEAN[:1])}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "set")
    SUPPORT.save(tmp_path / "catalogue.json")
    result = run(tmp_path / "set", "--catalogue", tmp_path / "catalogue.json", "--json")
    value = json.loads(result.stdout)
    assert [(split["name"], split["rows"]) for split in value["splits"]] == [("train", 6), ("valid", 1)]
    assert value["findings"][0]["where"] == f"{tmp_path}/set#validation:1"


def test_what_can_not_run(tmp_path: Path) -> None:
    folder = write(tmp_path, train=CLEAN)
    (tmp_path / "empty").mkdir()
    for arguments, error in (
        ([folder / "absent.jsonl"], DataError),
        ([tmp_path / "empty"], DataError),
        ([folder, "--catalogue", folder / "absent.json"], CatalogueError),
        ([folder, "--catalogue", folder / "catalogue.json", "--model", "./absent"], ModelError),
    ):
        assert isinstance(run(*arguments).exception, error), arguments
    assert run().exit_code == 2


def test_rendering_needs_no_findings(tmp_path: Path) -> None:
    assert render(report(tmp_path, train=CLEAN)).endswith("\n\n0 errors, 0 warnings and 0 notes")


def test_the_manual_lists_every_kind_of_finding() -> None:
    text = (Path(__file__).parent.parent / "docs" / "data.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    for code, (level, _) in KINDS.items():
        assert any(row.startswith(f"| {level} |") and f"`{code}`" in row for row in rows), code
