"""Numbered cases with a seed each, run in blocks; and the table of what was run.

Case ``n`` of a fault depends on the seed, the name of the fault and ``n`` alone: any case can be
run again by itself. With `FUZZ_STATE` (a folder) a campaign that was stopped goes on where it was;
the state is written after every block.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import random
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

SEED = int(os.environ.get("FUZZ_SEED", os.environ.get("FAULT_SEED", "20210812")))
STATE = os.environ.get("FUZZ_STATE", "")
_NAMED = 10
_TELL_S = 10.0


@dataclass(frozen=True)
class Line:
    """One line of the table: how often a fault was made, and how often it did harm."""

    fault: str
    n: int
    failures: int
    seed: int | None = None
    minutes: float = 0.0
    remark: str = ""

    @property
    def bound(self) -> float:
        """Upper 95 % bound on the rate of harm: 3/n where none was seen (rule of three)."""
        if self.n == 0 or self.failures >= self.n:
            return 1.0
        if self.failures == 0:
            return min(1.0, 3.0 / self.n)
        from scipy import stats  # slow to import, rarely needed

        return float(stats.beta.ppf(0.95, self.failures + 1, self.n - self.failures))


LINES: list[Line] = []
"""What this session ran; the end of the session prints it (``tests/conftest.py``)."""


def table(lines: list[Line]) -> str:
    """Render lines: fault, n, failures, 95 % bound, seed, minutes."""
    rows = [("fault", "n", "failures", "95 % bound", "seed", "min", "")]
    for line in lines:
        rows.append(
            (
                line.fault, f"{line.n:,}", str(line.failures), f"{line.bound:.2g}",
                "-" if line.seed is None else str(line.seed), f"{line.minutes:.1f}", line.remark,
            )
        )  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            text.rjust(width) if 0 < column < len(widths) - 1 else text.ljust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


@dataclass
class Campaign:
    """The cases ``0 .. count - 1`` of one fault."""

    fault: str
    count: int
    block: int = 1000
    seed: int = SEED
    done: int = 0
    failures: list[str] = field(default_factory=list)
    failed: int = 0
    seconds: float = 0.0
    remark: str = ""

    def __post_init__(self) -> None:
        path = self._state_file()
        if path is not None and path.is_file():
            state = json.loads(path.read_text())
            if (state["fault"], state["seed"]) == (self.fault, self.seed):
                self.done, self.failed = state["done"], state["failed"]
                self.failures, self.seconds = state["failures"], state["seconds"]

    def chance(self, number: int) -> random.Random:
        """The source of chance of one case."""
        return random.Random(f"{self.seed}:{self.fault}:{number}")

    def blocks(self) -> Iterator[range]:
        """The cases that are left, block by block; tells how it goes on stderr."""
        told_s = 0.0
        while self.done < self.count:
            begun_s = time.monotonic()
            block = range(self.done, min(self.count, self.done + self.block))
            yield block
            self.done = block.stop
            self.seconds += time.monotonic() - begun_s
            self._keep()
            if time.monotonic() - told_s > _TELL_S or self.done == self.count:
                told_s = time.monotonic()
                self._tell()

    def fail(self, number: int, why: str) -> None:
        """Note a failure; the first few are named at the end."""
        self.failed += 1
        if len(self.failures) < _NAMED:
            self.failures.append(f"case {number}: {why}")

    def run(
        self, case: Callable[[int, random.Random], None], limit_s: float = 1.0, at_once: int = 1
    ) -> None:
        """Run every case; one that raises, or takes longer than ``limit_s``, is a failure.

        ``at_once``: so many threads share the cases of a block; for cases that mostly wait.
        """
        with ThreadPoolExecutor(at_once) as pool:
            for block in self.blocks():
                if at_once == 1:
                    self.each(block, case, limit_s)
                else:
                    ones = [range(number, number + 1) for number in block]
                    list(pool.map(lambda one: self.each(one, case, limit_s), ones))

    def each(
        self, cases: range, case: Callable[[int, random.Random], None], limit_s: float
    ) -> None:
        """Run the cases of one block."""
        for number in cases:
            begun_s = time.monotonic()
            try:
                case(number, self.chance(number))
            except Exception as error:
                place = traceback.extract_tb(error.__traceback__)[-1]
                where = f"{Path(place.filename).name}:{place.lineno}"
                self.fail(number, f"{type(error).__name__}: {str(error)[:300]} ({where})")
            if (took_s := time.monotonic() - begun_s) > limit_s:
                self.fail(number, f"took {took_s:.1f} s")

    def finish(self) -> None:
        """Put the line into the table and fail where a case did."""
        LINES.append(
            Line(self.fault, self.done, self.failed, self.seed, self.seconds / 60, self.remark)
        )
        assert self.failed == 0, "\n".join(self.failures)

    def _state_file(self) -> Path | None:
        return Path(STATE) / f"{self.fault.replace(' ', '-')}.json" if STATE else None

    def _keep(self) -> None:
        path = self._state_file()
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            new = path.with_suffix(".new")
            new.write_text(json.dumps(asdict(self)))
            new.replace(path)

    def _tell(self) -> None:
        rate = self.done / self.seconds if self.seconds else 0.0
        sys.stderr.write(
            f"\n{self.fault}: {self.done:,} of {self.count:,}, {self.failed} failed, {rate:.0f}/s"
        )
        sys.stderr.flush()


def count_of(variable: str, default: int) -> int:
    """How many cases: of the variable of one fault, else of `FUZZ_COUNT`, else the default."""
    return int(os.environ.get(variable) or os.environ.get("FUZZ_COUNT") or default)


def resident_mib() -> float:
    """Memory of this process that is in RAM (MiB).

    First garbage is collected, and pages that the C library keeps free go back to the system: what
    is only scattered is no growth.
    """
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextmanager
def bounded_growth(campaign: Campaign, limit_mib: float) -> Iterator[None]:
    """Fail where the process is larger after the block than before by more than a limit."""
    before = resident_mib()
    yield
    grown = resident_mib() - before
    campaign.remark = f"memory {before:.0f} to {before + grown:.0f} MiB"
    if grown >= limit_mib:
        campaign.fail(campaign.done, f"memory grew by {grown:.1f} MiB, from {before:.1f}")
