"""Errors of the core. Each says what is wrong (`args[0]`) and what to do (`advice`)."""

from __future__ import annotations


class CoreError(Exception):
    """Base of all errors that the core raises on purpose.

    ``code`` is machine-readable and stable; ``advice`` is one plain sentence.
    """

    code = "core_error"

    def __init__(self, message: str, advice: str) -> None:
        super().__init__(message)
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.args[0]}. {self.advice}"

    def __reduce__(self) -> tuple[type[CoreError], tuple[str, str]]:
        return (type(self), (str(self.args[0]), self.advice))


class GeometryError(CoreError):
    """Two grids do not fit together, or a grid cannot be placed in the patient."""

    code = "geometry"


class ReleaseError(CoreError):
    """A release is incomplete, altered, or does not compute."""

    code = "release"


class InputError(CoreError):
    """An input file or case cannot be used at all."""

    code = "input"


class TrainingError(CoreError):
    """Training cannot start or go on."""

    code = "training"
