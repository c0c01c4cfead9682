"""Catalogues from OpenAI tools, MCP tools/list and Anthropic tools; and back.

What a foreign form says beyond name, description and the arguments' schema (`strict`, `title`, `annotations`,
`outputSchema`, `_meta` …) is dropped. Our own form is closed: an unknown key there is a typing error.
"""

from collections.abc import Mapping
from typing import Any

from .catalogue import Catalogue, Problem, Tool, read_tools
from .errors import CatalogueError


def catalogue_from_json(value: object) -> Catalogue:
    """Read a catalogue from any form of JSON that is known here.

    The canonical form or its list; OpenAI tools (Chat Completions, Responses, the old `functions`, or the body of a
    request that holds them); the result of MCP's tools/list or the whole JSON-RPC response; Anthropic tools. Raises
    `CatalogueError` naming every error at once.
    """
    return Catalogue.from_json(canonical_json(value))


def inspect_json(value: object) -> tuple[Catalogue | None, list[Problem]]:
    """The catalogue, None where there is none to be had, and everything wrong with it: errors, then warnings."""
    try:
        tools, instructions, problems = read_tools(canonical_json(value))
    except CatalogueError as error:
        return None, [Problem("error", "catalogue", error.message)]
    if isinstance(value, Mapping) and (_result(value).get("nextCursor")):
        problems.append(Problem("warning", "nextCursor", "this is one page of the server's tools; there are more"))
    problems.sort(key=lambda problem: problem.level != "error")
    usable = all(problem.level != "error" for problem in problems)
    return (Catalogue(tools, instructions) if usable else None), problems


def canonical_json(value: object) -> object:
    """The same catalogue in canonical form. What is in no known form is returned as it is."""
    if not isinstance(value, Mapping):
        return [_canonical_entry(entry) for entry in value] if isinstance(value, list) else value
    body = _result(value)
    key = "functions" if "functions" in body and "tools" not in body else "tools"
    entries = body.get(key)
    if not isinstance(entries, list):
        return body
    tools = [_canonical_entry(entry, foreign=key == "functions") for entry in entries]
    if key == "tools" and body is value and tools == entries:
        return body
    return {"instructions": body.get("instructions") or "", "tools": tools}


def _result(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a JSON-RPC response carries; anything else as it is."""
    if "jsonrpc" not in value:
        return value
    if isinstance(error := value.get("error"), Mapping):
        raise CatalogueError(f"the JSON-RPC response is an error: {error.get('message')!r}")
    result = value.get("result")
    if not isinstance(result, Mapping):
        raise CatalogueError("the JSON-RPC message holds no result", hint="give the response to tools/list")
    return result


def _canonical_entry(entry: object, *, foreign: bool = False) -> object:
    if not isinstance(entry, Mapping):
        return entry
    if isinstance(function := entry.get("function"), Mapping):
        return _plain(function, "parameters")
    for key in ("inputSchema", "input_schema"):
        if key in entry:
            return _plain(entry, key)
    if foreign or entry.get("type") == "function":
        return _plain(entry, "parameters")
    return entry


def _plain(entry: Mapping[str, Any], schema_key: str) -> dict[str, Any]:
    return {
        "name": entry.get("name"),
        "description": entry.get("description"),
        "parameters": entry.get(schema_key),
    }


def to_openai(catalogue: Catalogue) -> list[dict[str, Any]]:
    """The catalogue as OpenAI's `tools`. Its instructions are not part of that form."""
    return [{"type": "function", "function": tool.to_json()} for tool in catalogue]


def to_mcp(catalogue: Catalogue) -> dict[str, Any]:
    """The catalogue as the result of MCP's tools/list. Its instructions are not part of that form."""
    return {"tools": [_mcp_tool(tool) for tool in catalogue]}


def _mcp_tool(tool: Tool) -> dict[str, Any]:
    return {"name": tool.name, "description": tool.description, "inputSchema": tool.parameters}
