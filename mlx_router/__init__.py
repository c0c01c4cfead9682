"""Train, measure and run a small language model that turns a request into one validated tool call, offline.

    from mlx_router import Router

    router = Router.load("adapters/support")
    decision = router.route("Where's my order ORD-1234?")

Names are loaded on first use, so that `import mlx_router` needs neither mlx nor pydantic.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .calls import Decision, Decoder, Failure, Generation, NoTool, ParseFailure, ToolCall
    from .catalogue import Catalogue, Tool
    from .errors import RouterError
    from .parsing import parse
    from .router import Router

__version__ = "0.1.0"

_HOMES = {
    **dict.fromkeys(("Decision", "Decoder", "Failure", "Generation", "NoTool", "ParseFailure", "ToolCall"), "calls"),
    **dict.fromkeys(("Catalogue", "Tool"), "catalogue"),
    "RouterError": "errors",
    "Router": "router",
    "parse": "parsing",
}

__all__ = [
    "Catalogue",
    "Decision",
    "Decoder",
    "Failure",
    "Generation",
    "NoTool",
    "ParseFailure",
    "Router",
    "RouterError",
    "Tool",
    "ToolCall",
    "parse",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
