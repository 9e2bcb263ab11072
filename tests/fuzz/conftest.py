"""What every campaign watches: nothing may be logged as an error, and logs do not pile up."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.net.conftest import open_port

__all__ = ["no_errors_logged", "open_port"]

_KEPT = 20


_VERDICTS = "dicom_node.flow.judge"
"""An image that contradicts another is an error of who sent it, and told as one."""


class _Errors(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == _VERDICTS:
            return
        if len(self.records) < _KEPT:
            self.records.append(logging.Formatter().format(record))


@pytest.fixture(autouse=True)
def no_errors_logged() -> Iterator[None]:
    """Fail where the product logged an error; warnings, one for each hostile case, are not kept."""
    product, errors = logging.getLogger("dicom_node"), _Errors()
    libraries = [logging.getLogger(name) for name in ("pydicom", "pynetdicom")]
    before = [(logger, logger.level) for logger in (product, *libraries)]
    product.setLevel(logging.ERROR)
    product.addHandler(errors)
    product.propagate = False  # pytest keeps every record of a test: 0.7 kB for each hostile case
    for logger in libraries:
        logger.setLevel(logging.CRITICAL + 1)
    yield
    product.removeHandler(errors)
    product.propagate = True
    for logger, level in before:
        logger.setLevel(level)
    assert errors.records == []
