"""Reports for tests, made from rows without any model: a small one, one with forty tools, and one of hostile texts."""

import json
import random
from typing import Any

from mlx_router.baselines import always_no_tool, bag_of_words, most_frequent_tool, standings, untrained_base
from mlx_router.calls import Decision, ToolCall
from mlx_router.catalogue import Catalogue
from mlx_router.data import Example
from mlx_router.evaluation import Evaluation, Scored
from mlx_router.parsing import parse, parse_target
from mlx_router.report import Report

HOSTILE = (
    "<script>document.title = 'owned'</script><img src=x onerror=\"document.title='owned'\">",
    "]]> --> </style></title></textarea><h1>big</h1> &amp; &#60;script&#62;",
    "\u202eright to left override\u202c and \u2066an isolate\u2069, \x1b[31mred\x07",
    "שלום, איפה ההזמנה ORD-1? مرحبا، أين طلبي؟",
    "W" * 4000,
    "https://example.com/" + "a/" * 300,
    "'\"><svg onload=alert(1)> javascript:alert(1) {{7*7}} ${7*7} `x`",
    "half a character \ud83d here",
)


def tool(name: str, **types: str) -> dict[str, Any]:
    """A tool whose parameters are all required."""
    parameters = {"type": "object", "properties": {key: {"type": kind} for key, kind in types.items()}}
    return {"name": name, "description": f"does {name}.", "parameters": {**parameters, "required": list(types)}}


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"tool": name, "arguments": arguments}


def no_tool(reason: str = "out_of_scope") -> dict[str, Any]:
    return {"tool": "no_tool", "reason": reason}


def scored(
    catalogue: Catalogue, request: str, gold: dict[str, Any], output: dict[str, Any] | str, number: int = 0, **more: Any
) -> Scored:
    """One row; `more` are fields of its decision, `alternatives`, `kind` and `latency_ms`."""
    target = parse_target(gold, catalogue)
    others = tuple(parse_target(other, catalogue) for other in more.pop("alternatives", ()))
    example = Example(
        request, target, catalogue, others, kind=more.pop("kind", None), where=f"rows.jsonl:{number}"  # type: ignore[arg-type]
    )
    text = json.dumps(output, ensure_ascii=False, separators=(",", ":")) if isinstance(output, dict) else output
    outcome = parse(text, catalogue)
    latency = more.pop("latency_ms", None)
    decision = Decision(outcome, text, **more)
    action = decision.action if isinstance(outcome, ToolCall) else None
    return Scored(example, text, outcome, latency, None, p_right=decision.p_right, action=action, decision=decision)


def report_of(rows: list[Scored], title: str = "a router", training: list[Example] | None = None) -> Report:
    """A report with all baselines; the untrained base says nothing that parses."""
    examples = [row.example for row in rows]
    untrained = [scored(row.example.catalogue, "x", no_tool(), "I am a language model.") for row in rows]
    untrained = [Scored(row.example, one.output, one.outcome) for row, one in zip(rows, untrained, strict=True)]
    baselines = [always_no_tool(examples), most_frequent_tool(examples, training), bag_of_words(examples, training)]
    found = standings(rows, [*baselines, untrained_base(untrained, "some/base")])
    return Report(title, {"test": "rows.jsonl", "rows": str(len(rows))}, Evaluation.of(rows), found)


SUPPORT = Catalogue.from_json(
    [tool("track_order", order_id="string"), tool("request_refund", order_id="string", reason="string"),
     tool("escalate", reason="string")]
)  # fmt: skip


def support_rows(n: int = 120, *, calibrated: bool = False, seed: int = 0) -> list[Scored]:
    """Rows of three tools, three in four of them right, the surer ones more often."""
    chance = random.Random(seed)
    rows = []
    for number in range(n):
        name = f"ORD-{number}"
        gold = chance.choice(
            [call("track_order", order_id=name), call("request_refund", order_id=name, reason="it broke"),
             call("escalate", reason="angry"), no_tool("chitchat"), no_tool("out_of_scope")]
        )  # fmt: skip
        sure = chance.random()
        output: dict[str, Any] | str = gold
        if chance.random() > 0.5 + sure / 2:
            output = chance.choice(
                [call("escalate", reason="anger"), call("track_order", order_id="ORD-0"), no_tool(), "no JSON"]
            )
        more = {"p_right": sure} if calibrated else {}
        rows.append(
            scored(SUPPORT, f"request {number} about {name}", gold, output, number, kind=("plain", "trap")[number % 2],
                   confidence=sure, runner_up="escalate", weakest_argument=sure / 2, latency_ms=20 + 30 * sure**4,
                   **more)
        )  # fmt: skip
    return rows


def many_rows(tools: int = 40, n: int = 800) -> list[Scored]:
    """Rows of many tools, one in five taken for its neighbour."""
    chance = random.Random(1)
    names = [f"calendar_operation_{number:02}" for number in range(tools)]
    catalogue = Catalogue.from_json([tool(name, value="string") for name in names])
    rows = []
    for number in range(n):
        at = chance.randrange(tools)
        gold = call(names[at], value="x") if number % 9 else no_tool()
        said = call(names[(at + 1) % tools], value="x") if chance.random() < 0.2 else gold
        rows.append(scored(catalogue, f"request {number}", gold, said, number, confidence=chance.random()))
    return rows


def hostile_rows() -> list[Scored]:
    """Every hostile text as a request, an argument, an output, a kind, a reason."""
    rows = []
    for number, text in enumerate(HOSTILE):
        clean = text.replace("\ud83d", "?")
        rows += [
            scored(SUPPORT, clean, call("escalate", reason=clean), call("escalate", reason="x"), number, kind=clean,
                   alternatives=[call("track_order", order_id=clean)], runner_up=clean, confidence=0.5),
            scored(SUPPORT, clean, no_tool(clean), call("track_order", order_id=clean), number),
            scored(SUPPORT, clean, call("track_order", order_id="A"), text, number),
        ]  # fmt: skip
    return rows
