"""Catalogues from OpenAI tools, MCP tools/list, Anthropic tools, Pydantic models and Python functions; and back.

What a foreign form says beyond name, description and the arguments' schema (`strict`, `title`, `annotations`,
`outputSchema`, `_meta` …) is dropped. Our own form is closed: an unknown key there is a typing error.
"""

import difflib
import importlib
import importlib.util
import json
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from .catalogue import Catalogue, Tool, read_catalogue
from .declared import (
    declares_tool,
    from_declarations,
    from_functions,
    from_models,
    is_model,
    mentioned_types,
    names_its_tool,
    union_members,
)
from .errors import CatalogueError
from .schemas import Problem

__all__ = [
    "catalogue_from_json",
    "from_functions",
    "from_models",
    "inspect_json",
    "load_catalogue",
    "to_mcp",
    "to_openai",
]

# What a module may call its tools, in this order.
CATALOGUE_NAMES = ("CATALOGUE", "TOOLS")
SOURCES = (
    "a catalogue is a .json file, a .py file, an importable module, or module:attribute with a Catalogue, "
    "Pydantic models or functions"
)


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
        fields, problems = read_catalogue(canonical_json(value))
    except CatalogueError as error:
        return None, [Problem("error", "catalogue", error.message)]
    if isinstance(value, Mapping) and (_result(value).get("nextCursor")):
        problems.append(Problem("warning", "nextCursor", "this is one page of the server's tools; there are more"))
    problems.sort(key=lambda problem: problem.level != "error")
    usable = all(problem.level != "error" for problem in problems)
    return (Catalogue(**fields) if usable else None), problems


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
    reasons = {"reasons": body["reasons"]} if "reasons" in body else {}
    return {"instructions": body.get("instructions") or "", **reasons, "tools": tools}


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


def load_catalogue(source: str | Path) -> Catalogue:
    """Read a catalogue from a JSON file in any known form, or from Python: a .py file or a module, which is run.

    After a colon may stand the attribute to take, `tools.py:SUPPORT` or `package.module:SUPPORT`: a Catalogue, a list
    of Pydantic models or functions, a union of models, or one of the JSON forms. Without one a module gives its
    CATALOGUE or TOOLS, else what its `__all__` names, else the models or functions that it defines publicly. Raises
    `CatalogueError`.
    """
    path = Path(source)
    if path.suffix == ".json" or (path.suffix != ".py" and path.is_file()):
        return _about(path, lambda: catalogue_from_json(read_json(path)))
    where, attribute = _split_attribute(str(source))
    module = _load_module(where)
    return _about(source, lambda: _module_catalogue(module, attribute))


def read_json(path: Path) -> object:
    """The JSON of a file, strictly: no duplicate keys and no NaN, which would silently lose what was meant."""
    try:
        return json.loads(
            path.read_text(encoding="utf-8-sig"), object_pairs_hook=_unique_keys, parse_constant=_no_constant
        )
    except json.JSONDecodeError as error:
        raise CatalogueError(f"not JSON at line {error.lineno}, column {error.colno}: {error.msg}") from None
    except FileNotFoundError:
        raise CatalogueError("there is no such file", hint=SOURCES) from None
    except OSError as error:
        raise CatalogueError(f"can't be read: {error.strerror}") from None
    except (RecursionError, ValueError) as error:
        raise CatalogueError(f"not JSON: {error}") from None


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)!r} stands twice in one object")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


def _about(source: str | Path, read: Callable[[], Catalogue]) -> Catalogue:
    """What `read` returns; its errors begin with the source."""
    try:
        return read()
    except CatalogueError as error:
        raise CatalogueError(f"{source}: {error.message}", hint=error.hint) from error


def _split_attribute(source: str) -> tuple[str, str | None]:
    match = re.fullmatch(r"(.+?)(?::([A-Za-z_][\w.]*))?", source, re.DOTALL)
    return (match[1], match[2]) if match else (source, None)


def _load_module(where: str) -> ModuleType:
    """Import a .py file, its folder on the path, or a module, the current folder on the path."""
    path = Path(where)
    if path.suffix == ".py" and not path.is_file():
        raise CatalogueError(f"{where}: there is no such file", hint=SOURCES)
    if path.suffix != ".py" and not all(part.isidentifier() for part in where.split(".")):
        raise CatalogueError(f"{where}: there is no such file", hint=SOURCES)
    try:
        if path.suffix == ".py":
            return _import_file(path.resolve())
        with _on_path(Path.cwd()):
            return importlib.import_module(where)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{where}.".startswith(f"{error.name}."):
            raise CatalogueError(f"{where}: there is no such file or module", hint=SOURCES) from None
        raise CatalogueError(f"{where} raised {_raised(error, path)}") from error


def _import_file(path: Path) -> ModuleType:
    name = f"mlx_router_catalogue_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Pydantic looks up forward references in the module that a class names as its own.
    sys.modules[name] = module
    try:
        with _on_path(path.parent):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextmanager
def _on_path(folder: Path) -> Iterator[None]:
    entry = str(folder)
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        sys.path.remove(entry)


def _raised(error: BaseException, path: Path) -> str:
    """An exception in words, with the line of the user's file that it comes from."""
    if isinstance(error, SyntaxError):
        return f"SyntaxError: {error}"
    frames = traceback.extract_tb(error.__traceback__)[::-1]
    frame = next((frame for frame in frames if Path(frame.filename) == path.resolve()), frames[0])
    return f"{type(error).__name__}: {error} ({Path(frame.filename).name}, line {frame.lineno})"


def _module_catalogue(module: ModuleType, attribute: str | None) -> Catalogue:
    if attribute is not None:
        return _catalogue_of(_attribute(module, attribute))
    for name in CATALOGUE_NAMES:
        if hasattr(module, name):
            return _catalogue_of(getattr(module, name))
    return from_declarations(_declared_in(module))


def _attribute(module: ModuleType, attribute: str) -> object:
    value: object = module
    for name in attribute.split("."):
        if not hasattr(value, name):
            near = difflib.get_close_matches(name, [name for name in dir(value) if not name.startswith("__")])
            hint = f"did you mean {near[0]!r}?" if near else None
            raise CatalogueError(f"there is no attribute {name!r}", hint=hint)
        value = getattr(value, name)
    return value


def _catalogue_of(value: object) -> Catalogue:
    """The catalogue that a Python value stands for."""
    if isinstance(value, Catalogue):
        return value
    if (members := union_members(value)) is not None:
        return from_declarations(members)
    if isinstance(value, Mapping):
        return catalogue_from_json(value)
    if isinstance(value, list | tuple):
        json_form = any(isinstance(entry, Mapping) for entry in value)
        return catalogue_from_json(list(value)) if json_form else from_declarations(value)
    return from_declarations([value])


def _declared_in(module: ModuleType) -> list[object]:
    """The module's tools: what `__all__` names, else its whole calls, else its models or its functions."""
    if hasattr(module, "__all__"):
        return [value for name in module.__all__ if declares_tool(value := getattr(module, name, None))]
    public = [value for name, value in vars(module).items() if not name.startswith("_")]
    own = [value for value in public if declares_tool(value) and getattr(value, "__module__", None) == module.__name__]
    if calls := [value for value in own if names_its_tool(value)]:
        return calls
    models = [value for value in own if is_model(value)]
    functions = [value for value in own if not is_model(value)]
    if models and functions:
        raise CatalogueError(
            "the module defines both Pydantic models and functions; which are the tools?",
            hint="list them: TOOLS = [...] in the module, or its __all__",
        )
    return functions or _outermost(models)


def _outermost(models: list[Any]) -> list[object]:
    """The models that are no other's base and stand in no other's field."""
    parts = {base for model in models for base in model.__mro__[1:]}
    for model in models:
        # A field may name a model that is defined further down.
        model.model_rebuild(raise_errors=False)
        parts |= {one for info in model.model_fields.values() for one in mentioned_types(info.annotation)} - {model}
    return [model for model in models if model not in parts]
