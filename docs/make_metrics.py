"""Write the lower part of metrics.md from the verdicts in tests/: python docs/make_metrics.py

What stands above the mark in metrics.md is kept. A test holds that the file is what this script writes.
"""

import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "metrics.md"
VERDICTS = ROOT / "tests" / "verdicts.jsonl"
CATALOGUE = ROOT / "tests" / "verdicts.catalogue.json"
MARK = "<!-- Written by docs/make_metrics.py from tests/verdicts.jsonl: change those, not what follows. -->"
SHOWN_CHARACTERS = 96

Verdict: TypeAlias = dict[str, Any]

# What can hold of a row, and the head of its column.
COLUMNS = {
    "parsed": "parsed",
    "right_tool": "tool",
    "arguments_equal": "args",
    "arguments_equal_as_declared": "args, decl.",
    "exact": "exact",
    "exact_with_alternatives": "exact, alt.",
    "exact_as_declared": "exact, decl.",
}
COUNTED = ("wrong_call", "missed_call", "false_call")
INTRODUCTION = """\
## Verdicts

{n} pairs of a gold target and an output, judged by hand; a test holds the code to every one of them. Their tools are in
`tests/verdicts.catalogue.json`, where these declare comparisons:

{compare}

A tick says that it holds: the output is parsed; has the gold tool; is a real call of it with equal arguments, strictly
and by declared comparison; is exactly right strictly, by the gold target or an alternative, and by declared comparison
(the gold target or an alternative). What a row counts as is strict."""
BERKELEY = """\
### Where the Berkeley checker judges otherwise

The Berkeley Function Calling Leaderboard (BFCL) is a public measure that is widely used. Its single-turn checker, as it
reads in `bfcl_eval/eval_checker/ast_eval/ast_checker.py` and `eval_runner.py` of the repository ShishirPatil/gorilla,
asks something else than the strict figures here:

- The gold answer of a call is a list of possible values for each parameter, not a list of whole calls. A parameter
  whose list holds the empty text may be left out; any other may not, and none may be added.
- Texts are compared in lower case, without spaces and without the marks `, . / - _ * ^`, single quotes taken for double
  ones; so are texts in arrays, and those directly within objects. There is no way to ask for an exact text, and no
  other folding: Unicode's forms and other punctuation stay different.
- An integer is taken for a float, but not within an array; a float is never taken for an integer, even 5.0. Booleans
  are no numbers at the top, but within an object Python's equality decides, where True is 1.
- Arrays are compared in order. Types are checked one level deep; enums, ranges, patterns and formats are not.
- A request that needs no call is passed where no call can be read from the answer, whatever the answer is.

Below are the rows on which it differs from `exact`, taken so: each argument of the gold target and of alternatives with
the same tool is a possible value, and where the schema has a default, that and leaving it out are possible as well; the
call reaches the checker the way native calls do, as a name and the JSON text of the arguments. What stands around these
two is no matter of the checker, so rows about other keys of the object are left out."""


def read_verdicts() -> list[Verdict]:
    """The rows of the table, each with its output as one text."""
    rows = [json.loads(line) for line in VERDICTS.read_text(encoding="utf-8").splitlines()]
    return [{**row, "output": _joined(row["output"])} for row in rows]


def _joined(output: str | list[tuple[str, int]]) -> str:
    """A long output stands in the file as pieces and how often each is repeated."""
    return output if isinstance(output, str) else "".join(piece * times for piece, times in output)


def totals(rows: Sequence[Verdict]) -> dict[str, tuple[int, int]]:
    """The metrics of the whole table, counted from the verdicts: how many, of how many."""
    n = len(rows)
    counts = Counter(word for row in rows for word in row["holds"])
    calls = sum(row["gold"]["tool"] != "no_tool" for row in rows)
    routed = sum(row["gold"]["tool"] != "no_tool" and "right_tool" in row["holds"] for row in rows)
    return {
        "valid_tool_call_rate": (counts["parsed"], n),
        "tool_name_accuracy": (counts["right_tool"], n),
        "argument_match_accuracy": (counts["arguments_equal"], counts["parsed"]),
        "false_tool_call_rate": (counts["false_call"], n),
        "exact_match": (counts["exact"], n),
        "exact_match_with_alternatives": (counts["exact_with_alternatives"], n),
        "argument_match_on_calls": (counts["arguments_equal"], routed),
        "false_call_rate_on_no_tool": (counts["false_call"], n - calls),
        "missed_call_rate": (counts["missed_call"], calls),
        "wrong_call_rate": (counts["wrong_call"], n),
        "parse_failure_rate": (n - counts["parsed"], n),
    }


def page() -> str:
    """The whole page: what stands above the mark, then what the verdicts make."""
    head = PAGE.read_text(encoding="utf-8").partition(MARK)[0].rstrip()
    rows = read_verdicts()
    groups = list(dict.fromkeys(row["group"] for row in rows))
    parts = [head, MARK, INTRODUCTION.format(n=len(rows), compare=_comparisons())]
    parts += [f"### {group}\n\n" + _verdicts([row for row in rows if row["group"] == group]) for group in groups]
    parts += ["### All rows together\n\n" + _totals(rows), BERKELEY, _berkeley(rows)]
    return "\n\n".join(parts) + "\n"


def _comparisons() -> str:
    tools = json.loads(CATALOGUE.read_text(encoding="utf-8"))["tools"]
    return _table(
        ("tool", "`compare`"),
        [(f"`{tool['name']}`", _code(_json(tool["compare"]))) for tool in tools if "compare" in tool],
    )


def _verdicts(rows: Iterable[Verdict]) -> str:
    head = ("row", "gold", "output", *COLUMNS.values(), "counts as", "why")
    return _table(head, [_line(row) for row in rows])


def _line(row: Verdict) -> tuple[str, ...]:
    targets = [_code(_call(target)) for target in (row["gold"], *row.get("alternatives", ()))]
    ticks = ["✓" if word in row["holds"] else "" for word in COLUMNS]
    counts = [f"`{row['failure']}`"] if row["failure"] else []
    counts += [word.replace("_", " ") for word in COUNTED if word in row["holds"]]
    return row["id"], " or ".join(targets), _code(row["output"]), *ticks, ", ".join(counts), _escaped(row["why"])


def _totals(rows: Sequence[Verdict]) -> str:
    return _table(
        ("metric", "count", "of"), [(f"`{name}`", str(count), str(n)) for name, (count, n) in totals(rows).items()]
    )


def _berkeley(rows: Iterable[Verdict]) -> str:
    lines = [
        (row["id"], _exact(row), "right" if row["bfcl"]["right"] else "wrong", _escaped(row["bfcl"]["why"]))
        for row in rows
        if "bfcl" in row
    ]
    return _table(("row", "here", "there", "why"), lines)


def _exact(row: Verdict) -> str:
    if row["failure"]:
        return f"`{row['failure']}`"
    return "right" if "exact" in row["holds"] else "wrong"


def _call(target: Mapping[str, Any]) -> str:
    """A target as one writes a call."""
    if target["tool"] == "no_tool":
        return f"no_tool({target['reason']})"
    return f"{target['tool']}({', '.join(f'{name}={_json(value)}' for name, value in target['arguments'].items())})"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _code(text: str) -> str:
    """Text as code in a table: cut where it is long, escaped where it could not be seen."""
    seen = "".join(
        character if _is_seen(character) else character.encode("unicode_escape").decode() for character in text
    )
    if len(seen) > SHOWN_CHARACTERS:
        seen = f"{seen[: SHOWN_CHARACTERS - 30]} … ({len(text):,} characters)"
    fence = "``" if "`" in seen else "`"
    space = " " if fence == "``" or seen != seen.strip() else ""
    return f"{fence}{space}{_escaped(seen)}{space}{fence}" if seen else ""


def _is_seen(character: str) -> bool:
    return character.isprintable() and not unicodedata.combining(character)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
