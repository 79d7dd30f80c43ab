"""Every error this library raises on purpose, and the exit code the command line gives it.

Each class also inherits the built-in error a PyTorch user would expect (`ValueError`,
`TypeError`, ...), so `except ValueError` keeps working. The messages say what was expected, what
came, where, and what to do.

Inner code raises a short reason; the public boundary adds the place with `error.at(place)`.
"""

from __future__ import annotations

from typing import TypeVar

_Self = TypeVar("_Self", bound="W8A16Error")


class W8A16Error(Exception):
    """Base of all errors of this library."""

    exit_code = 3

    def at(self: _Self, place: str) -> _Self:
        """Return the same error with `place` (a tensor, module or file) put in front of the message.

        Example:
            >>> str(ShapeError("expected [4, 8], got [8, 4]").at("encoder.query"))
            'encoder.query: expected [4, 8], got [8, 4]'
        """
        return self._saying(f"{place}: {self}")

    def followed_by(self: _Self, text: str) -> _Self:
        """Return the same error with `text`, a further consequence, added to the message."""
        return self._saying(f"{self}; {text}")

    def _saying(self: _Self, message: str) -> _Self:
        other = type(self).__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.args = (message,)
        return other


class W8A16Warning(UserWarning):
    """Base of the warnings of this library; nothing warns at import."""


class ShapeError(W8A16Error, ValueError):
    """A tensor's shape is not the one the operation needs."""


class DtypeError(W8A16Error, TypeError):
    """A tensor's dtype, layout or device cannot be used here."""


class IndexRangeError(W8A16Error, IndexError):
    """An index names no row of a table."""


class WeightValueError(W8A16Error, ValueError):
    """A weight holds values that have no int8 code: NaN, Inf, or a scale beyond float32."""


class PatternError(W8A16Error, ValueError):
    """An include or exclude pattern that matches nothing, or contradicts another one."""

    exit_code = 2


class CoverageError(W8A16Error, ValueError):
    """`strict=True` and some float weight would stay float."""


class ModuleError(W8A16Error, TypeError):
    """A module is not of the kind the operation needs."""


class ComparisonError(W8A16Error, ValueError):
    """Two models, or what they give out for the same inputs, cannot be compared."""


class BudgetError(W8A16Error, ValueError):
    """A drift budget that no recipe keeps."""


class CheckpointError(W8A16Error, ValueError):
    """A file or folder does not hold what its format or the model requires."""


class UnknownModelError(CheckpointError):
    """A folder names no model class, or one that is not known here; names can tell what its tensors are."""


class BackendError(W8A16Error, RuntimeError):
    """An explicitly chosen backend cannot run here."""

    exit_code = 2


class UsageError(W8A16Error, ValueError):
    """Arguments that contradict each other."""

    exit_code = 2


class OutputRefusedError(W8A16Error, FileExistsError):
    """The output path exists, equals the input, or lies inside it."""

    exit_code = 4


class ResourceError(W8A16Error, OSError):
    """The disk or the memory does not suffice, or a file cannot be read or written."""

    exit_code = 5


class MissingExtraError(W8A16Error, ImportError):
    """An optional dependency is needed; the message names the extra that installs it."""

    def __init__(self, library: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs {library}, which is not installed: pip install 'w8a16[{extra}]'")
