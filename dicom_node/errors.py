"""Errors that reach a person. Each says what is wrong and what to do.

NodeError
  ConfigError      the configuration cannot be used
    WrongUseError  a setting or an option is wrong; nothing was begun (exit status 2)
  StoreError       the database or the spool cannot be used
    SyncFailed     the disk did not make durable what was written
  InputProblem     a study cannot be analysed (carries a Reason)
  DeliveryError    results cannot be sent
  RegistryError    a release of the model may not run
"""

from __future__ import annotations

from dicom_node.domain.reasons import REASONS, Reason


class NodeError(Exception):
    """Root of the errors shown to people: ``message`` says what is wrong, ``advice`` what to do."""

    exit_status = 1

    def __init__(self, message: str, advice: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.message}; {self.advice}" if self.advice else self.message


class ConfigError(NodeError):
    """The configuration cannot be used."""


class WrongUseError(ConfigError):
    """A setting or an option is wrong, as written: nothing was begun."""

    exit_status = 2


class StoreError(NodeError):
    """The database or the spool cannot be used."""


class SyncFailed(StoreError):
    """The disk did not make durable what was written: what it kept of it is not known."""


class DeliveryError(NodeError):
    """Results cannot be sent."""


class RegistryError(NodeError):
    """A release of the model may not run."""


class InputProblem(NodeError):
    """A study cannot be analysed. ``detail`` adds to the plain words of the reason."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        text = REASONS[reason]
        super().__init__(f"{text.message} {detail}".strip(), text.advice)
        self.reason = reason
        self.detail = detail
