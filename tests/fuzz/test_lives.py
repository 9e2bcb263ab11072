"""The life of a study under random events, many times over (`tests/flow/test_life.py`).

`FUZZ_LIVES` says how many lives of up to 60 events each, `FUZZ_SEED` which.
"""

from __future__ import annotations

import time

import pytest
from hypothesis import seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.flow.test_life import Life
from tests.fuzz.campaign import LINES, SEED, Line, count_of

pytestmark = [pytest.mark.fuzz, pytest.mark.slow]
WHOLE, EVENTS = 30, 60


def test_G1_to_G5_the_life_of_a_study() -> None:
    lives, begun_s = count_of("FUZZ_LIVES", WHOLE), time.monotonic()
    failures = 1
    try:
        run_state_machine_as_test(
            seed(SEED)(Life),
            settings=settings(
                max_examples=lives, stateful_step_count=EVENTS, deadline=None, database=None
            ),
        )
        failures = 0
    finally:
        minutes = (time.monotonic() - begun_s) / 60
        LINES.append(Line("life of a study, random events", lives, failures, SEED, minutes))
