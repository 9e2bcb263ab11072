"""Runs an evaluation over many cases: several processes, one small file per finished case."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch

from ai_core.errors import CoreError
from ai_core.evaluate.inputs import KeptInputs
from ai_core.evaluate.one import Plan, evaluate_case
from ai_core.evaluate.record import CaseRecord, read_record, write_record
from ai_core.evaluate.sources import CaseSource, open_source
from ai_core.release import load_release
from ai_core.resume import claim_folder
from ai_core.sim.sites import Site, site_to_dict
from ai_core.types import ReleaseInfo

#: Raised when records or the analysis behind them change their meaning.
RECORD_FORMAT = 1
RUN_FILE = "run.json"
CASES_FOLDER = "cases"
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Request:
    """One evaluation. ``sites`` and ``seed`` say how cached anatomies are rendered.

    ``limit``: only so many cases, spread evenly over the data; None: all. ``inputs``: a folder
    that keeps what was rendered, for the next evaluation of the same data; None: none.
    """

    release: Path | None
    folders: tuple[Path, ...]
    out: Path
    plan: Plan
    sites: tuple[Site, ...] | None = None
    seed: int = 1
    limit: int | None = None
    workers: int = 1
    device: str = "auto"
    precision: str = "auto"
    inputs: Path | None = None

    def source(self) -> CaseSource | KeptInputs:
        """Open the data."""
        source = open_source(self.folders, self.sites, self.seed)
        return source if self.inputs is None else KeptInputs(source, self.inputs)


@dataclass(frozen=True)
class Outcome:
    """All records of a run, in the order of the data, and the release they belong to."""

    release: ReleaseInfo
    records: tuple[CaseRecord, ...]


def run_evaluation(request: Request, progress: Progress | None = None) -> Outcome:
    """Evaluate all cases that have no record yet; returns the records of all.

    Raises:
        InputError: the data cannot be used, or the folder holds records of something else.
        ReleaseError: the release cannot be used.
    """
    source = request.source()
    info = load_release(request.release, request.device, request.precision).info
    folder = request.out / CASES_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    _claim(request, info)
    chosen = _chosen(len(source.names), request.limit)
    todo = [i for i in chosen if read_record(folder, source.names[i]) is None]
    done = len(chosen) - len(todo)
    for _ in _evaluated(request, todo):
        done += 1
        if progress:
            progress(done, len(chosen))
    records = [read_record(folder, source.names[i]) for i in chosen]
    return Outcome(info, tuple(record for record in records if record is not None))


def _chosen(count: int, limit: int | None) -> list[int]:
    if limit is None or limit >= count:
        return list(range(count))
    return [i * count // limit for i in range(limit)]


def _claim(request: Request, info: ReleaseInfo) -> None:
    """Note what the folders' files belong to; refuse a folder of another run."""
    sites = None if request.sites is None else [site_to_dict(site) for site in request.sites]
    data = {
        "format": RECORD_FORMAT,
        "data": [str(folder.resolve()) for folder in request.folders],
        "seed": request.seed,
        "sites": hashlib.sha256(json.dumps(sites, sort_keys=True).encode()).hexdigest(),
    }
    run = data | {
        "release": info.sha256,
        "precision": request.precision,
        "tissue_table": request.plan.tissue_table,
        "without": [modality.value for modality in request.plan.without],
        "inputs": request.inputs is not None,
    }
    _claim_one(request.out, run, "--out")
    if request.inputs is not None:
        _claim_one(request.inputs, data, "--inputs")


def _claim_one(folder: Path, this: dict[str, object], option: str) -> None:
    claim_folder(folder / RUN_FILE, this, "an evaluation", f"Choose another folder for {option}.")


def _evaluated(request: Request, todo: Sequence[int]) -> Iterator[int]:
    """Evaluate cases and yield their numbers as they are finished."""
    if request.workers <= 1:
        worker = _Worker(request)
        for index in todo:
            worker.evaluate(index)
            yield index
        return
    with ProcessPoolExecutor(
        request.workers, get_context("spawn"), initializer=_start, initargs=(request,)
    ) as pool:
        waiting: set[Future[int]] = {pool.submit(_work, index) for index in todo}
        try:
            while waiting:
                finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in finished)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


class _Worker:
    """One process: the release, the data, and its share of the processors."""

    def __init__(self, request: Request) -> None:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // request.workers))
        self.plan = request.plan
        self.folder = request.out / CASES_FOLDER
        self.release = load_release(request.release, request.device, request.precision)
        self.source = request.source()

    def evaluate(self, index: int) -> None:
        """Evaluate one case and write its record; a case that cannot be used says why."""
        name = self.source.names[index]
        start = time.perf_counter()
        try:
            labelled = self.source.read(index)
            read_s = time.perf_counter() - start
            record = evaluate_case(labelled, self.release, self.plan)
            record = record.model_copy(update={"read_s": round(read_s, 3)})
        except CoreError as error:
            record = CaseRecord(name=name, problem=str(error))
        write_record(record, self.folder)


_WORKER: list[_Worker] = []


def _start(request: Request) -> None:
    _WORKER[:] = [_Worker(request)]


def _work(index: int) -> int:
    _WORKER[0].evaluate(index)
    return index
