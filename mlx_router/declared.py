"""Catalogues from Python: Pydantic models and annotated functions, read by Pydantic itself.

A model declares a tool in one of two ways. Either its fields are the tool's arguments:

    class TrackOrder(BaseModel):
        "Get the status of an order."
        order_id: str

or it is the whole call, with the arguments in a nested `Args` or as `arguments: SomeModel`:

    class TrackOrder(BaseModel):
        tool: Literal["track_order"]
        arguments: dict
        class Args(BaseModel):
            order_id: str

Argument names in calls are what the model accepts: a field's validation alias, or its name where it has none.
`Decision.dispatch` passes values by field name.
"""

import inspect
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator
from types import UnionType
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

from pydantic import AliasChoices, AliasPath, BaseModel, ConfigDict, Field, create_model
from pydantic.errors import PydanticUserError
from pydantic.fields import FieldInfo
from pydantic.json_schema import PydanticJsonSchemaWarning

from .calls import NO_TOOL
from .catalogue import Catalogue, Tool
from .docstrings import parameter_descriptions, summary
from .errors import CatalogueError
from .schemas import Schema

Model: TypeAlias = type[BaseModel]
Function: TypeAlias = Callable[..., Any]


class _Unfit(Exception):
    """Why one declaration makes no tool; collected, so that a catalogue's error names all of them."""


def from_models(*models: Model, instructions: str = "") -> Catalogue:
    """A catalogue of Pydantic models, one per tool; a model of `no_tool` is left out.

    A tool is named by its `tool: Literal["name"]`, else by a `tool_name: ClassVar[str]`, else by its class in snake
    case, and described by the first paragraph of its docstring. Validators of the arguments' model run on each call.
    Raises `CatalogueError` naming every model that makes no tool.
    """
    return from_declarations(models, instructions=instructions)


def from_functions(*functions: Function, instructions: str = "", exclude: Collection[str] = ()) -> Catalogue:
    """A catalogue of Python functions, one per tool, from their type hints and docstrings.

    `exclude` names parameters that the program fills in itself (a connection, say); `self` and `cls` always are. A
    parameter is described by `Annotated[T, "words"]`, by a Pydantic `Field`, or by the docstring's section on it.
    Raises `CatalogueError` naming every parameter that can't be used.
    """
    return from_declarations(functions, instructions=instructions, exclude=exclude)


def from_declarations(
    declarations: Iterable[object], *, instructions: str = "", exclude: Collection[str] = ()
) -> Catalogue:
    """A catalogue of Pydantic models, functions and `Tool`s, in any mixture."""
    tools: list[Tool] = []
    faults: list[str] = []
    for declaration in declarations:
        try:
            tools += _tools(declaration, exclude)
        except _Unfit as unfit:
            faults += str(unfit).splitlines()
    if faults:
        lines = "\n".join(f"  {fault}" for fault in faults)
        raise CatalogueError(f"{len(faults)} error(s) in the tools' declarations:\n{lines}")
    return Catalogue(tuple(tools), instructions)


def declares_tool(value: object) -> bool:
    """Whether a value of a module is a Pydantic model or a function, which a tool can be made of."""
    return is_model(value) or inspect.isfunction(value) or inspect.ismethod(value)


def is_model(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, BaseModel) and value is not BaseModel


def names_its_tool(model: object) -> bool:
    """Whether a model is a whole call, or a `no_tool`: `tool: Literal["name"]` and what goes with it."""
    return _literal_tool(model) is not None


def union_members(value: object) -> tuple[object, ...] | None:
    """The types of a union, an `Annotated` one too; None for anything else."""
    if get_origin(value) is Annotated:
        return union_members(get_args(value)[0])
    return get_args(value) if get_origin(value) in (Union, UnionType) else None


def mentioned_types(annotation: object) -> Iterator[object]:
    """Every type that stands somewhere in an annotation."""
    yield annotation
    for part in get_args(annotation):
        yield from mentioned_types(part)


def _tools(declaration: object, exclude: Collection[str]) -> list[Tool]:
    if isinstance(declaration, Tool):
        return [declaration]
    if isinstance(declaration, type) and is_model(declaration):
        tool = _model_tool(declaration)
        return [] if tool is None else [tool]
    if callable(declaration) and not isinstance(declaration, type):
        return [_function_tool(declaration, exclude)]
    raise _Unfit(f"{declaration!r} is no Pydantic model and no function")


def _literal_tool(model: object) -> tuple[Any, ...] | None:
    """Values of `tool: Literal[…]` in a model that is a whole call or a `no_tool`; None for a plain model."""
    if not isinstance(model, type) or not issubclass(model, BaseModel) or "tool" not in model.model_fields:
        return None
    annotation = model.model_fields["tool"].annotation
    values = get_args(annotation) if get_origin(annotation) is Literal else ()
    return values if values == (NO_TOOL,) or (values and "arguments" in model.model_fields) else None


def _model_tool(model: Model) -> Tool | None:
    names = _literal_tool(model)
    if names == (NO_TOOL,):
        return None
    if names is None:
        own_name = getattr(model, "tool_name", None)
        name = own_name if isinstance(own_name, str) else _snake_case(model.__name__)
        return _tool(name, summary(model.__doc__), model)
    if len(names) != 1 or not isinstance(names[0], str):
        raise _Unfit(f"{model.__name__}: its `tool` must be a Literal of one name, not of {names!r}")
    arguments = _arguments_model(model)
    return _tool(names[0], summary(model.__doc__) or summary(arguments.__doc__), arguments)


def _arguments_model(model: Model) -> Model:
    for candidate in (model.model_fields["arguments"].annotation, getattr(model, "Args", None)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    raise _Unfit(f"{model.__name__}: what are its arguments? declare `arguments: SomeModel` or a nested `class Args`")


def _tool(name: str, description: str, model: Model) -> Tool:
    for field, info in model.model_fields.items():
        if isinstance(info.validation_alias, AliasPath):
            raise _Unfit(f"{name}, {field}: a value taken from within another (AliasPath) can't be declared as JSON")
        if isinstance(info.validation_alias, AliasChoices) and not isinstance(info.validation_alias.choices[0], str):
            raise _Unfit(f"{name}, {field}: the first of its AliasChoices must be a plain name")
    try:
        return Tool(name, description, _schema(model), model)
    except PydanticUserError as error:
        raise _Unfit(f"{name}: {error.message.splitlines()[0]}") from error


def _schema(model: Model) -> Schema:
    """The model's JSON Schema under the names that it validates by, without its docstring."""
    by_alias = model.model_config.get("validate_by_alias") is not False
    with warnings.catch_warnings():
        # A default that is no JSON stays the program's own matter: the schema says that the argument is optional.
        warnings.simplefilter("ignore", PydanticJsonSchemaWarning)
        schema = model.model_json_schema(by_alias=by_alias, mode="validation")
    schema.pop("description", None)
    return schema


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _function_tool(function: Function, exclude: Collection[str]) -> Tool:
    name = getattr(function, "__name__", None)
    if not isinstance(name, str):
        raise _Unfit(f"{function!r} has no name; wrap it in a function")
    try:
        parameters = inspect.signature(function).parameters.values()
        hints = get_type_hints(function, include_extras=True)
    except (NameError, TypeError, ValueError) as error:
        raise _Unfit(f"{name}: its type hints can't be read: {error}") from error
    taken = [parameter for parameter in parameters if parameter.name not in {"self", "cls", *exclude}]
    faults = [f"{name}, parameter {one.name!r}: {fault}" for one in taken if (fault := _fault(one, hints))]
    if faults:
        raise _Unfit("\n".join(faults))
    return _tool(name, summary(function.__doc__), _function_model(name, function.__doc__, taken, hints))


def _fault(parameter: inspect.Parameter, hints: dict[str, Any]) -> str | None:
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        return "a tool takes named arguments only, no *args or **kwargs"
    if parameter.kind is parameter.POSITIONAL_ONLY:
        return "it is positional-only, and a call passes its arguments by name"
    if parameter.name not in hints:
        return "it has no type hint"
    if parameter.name.startswith("_"):
        return "its name begins with an underscore"
    if parameter.name == "model_config" or isinstance(getattr(BaseModel, parameter.name, None), property):
        return "Pydantic keeps this name for itself"
    return None


def _function_model(name: str, doc: str | None, parameters: list[inspect.Parameter], hints: dict[str, Any]) -> Model:
    described = parameter_descriptions(doc)
    fields: dict[str, Any] = {
        one.name: (
            _described(hints[one.name], described.get(one.name)),
            ... if one.default is one.empty else one.default,
        )
        for one in parameters
    }
    config = ConfigDict(extra="forbid", protected_namespaces=())
    try:
        with warnings.catch_warnings():
            # A parameter called `copy` or `json` hides a method of BaseModel that nobody calls here.
            warnings.filterwarnings("ignore", message=".*shadows an attribute")
            model: Model = create_model(name, __config__=config, **fields)
    except PydanticUserError as error:
        raise _Unfit(f"{name}: {error.message.splitlines()[0]}") from error
    except (NameError, TypeError, ValueError) as error:
        raise _Unfit(f"{name}: {error}") from error
    return model


def _described(annotation: Any, text: str | None) -> Any:
    """The annotation with a description, unless it brings one in a `Field` of its own."""
    base, *metadata = get_args(annotation) if get_origin(annotation) is Annotated else (annotation,)
    words = [getattr(mark, "documentation", mark) for mark in metadata if not isinstance(mark, FieldInfo)]
    text = next((word for word in words if isinstance(word, str)), text)
    return Annotated[(base, Field(description=text), *metadata)] if text else annotation
