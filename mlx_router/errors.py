"""What mlx-router raises at its users.

    RouterError
    ├── UsageError       flags or arguments that do not go together
    ├── CatalogueError   a catalogue that can't be used
    ├── DataError        rows that can't be read or trained on
    ├── ConfigError      a recipe with unknown or unfit fields
    ├── ModelError       a base or an adapter folder that can't be loaded
    ├── TrainingError    a run that would go wrong in silence
    └── RequestError     a request that can't be routed: empty, too long, not text

A model's own output never raises: it becomes a `ParseFailure`.
"""


class RouterError(Exception):
    """An expected error: a message for the user and, where one exists, a hint that says what to do."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(RouterError):
    """Flags or arguments that do not go together."""


class CatalogueError(RouterError):
    """A catalogue that can't be used; the message names every problem found."""


class DataError(RouterError):
    """Data that can't be read or trained on; the message names file and line."""


class ConfigError(RouterError):
    """A recipe with unknown or unfit fields; the message names all of them."""


class ModelError(RouterError):
    """A base model or an adapter folder that can't be loaded."""


class TrainingError(RouterError):
    """A training run that would have gone wrong in silence."""


class RequestError(RouterError):
    """A request that can't be routed: empty, too long, or not valid text."""
