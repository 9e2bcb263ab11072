"""Mutated data sets through the receive path and the choice of series.

What is accepted must be stored, found again from the journal and usable by everything that reads
headers; what is not must be refused with a status. `FUZZ_DATASETS` or `FUZZ_COUNT` say how many,
`FUZZ_SEED` which.
"""

from __future__ import annotations

import copy
import io
import random
import resource
import shutil
import struct
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import cache
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from ai_core.errors import CoreError
from dicom_node.clock import ManualClock
from dicom_node.dicom.header import InstanceHeader, read_header
from dicom_node.dicom.select import Selection, select
from dicom_node.dicom.volume import build_case
from dicom_node.domain.identity import is_uid
from dicom_node.errors import InputProblem
from dicom_node.flow.spool import instance_row, read_dataset
from dicom_node.store.rows import InstanceRow
from tests.databases import fast_folder, migrated
from tests.dicom.test_header import SIEMENS, csa, enhanced, with_private
from tests.flow.conftest import ADC, STUDY, T2W, Node, encoded, mr_image, series
from tests.fuzz.campaign import Campaign, bounded_growth, count_of
from tests.fuzz.conversations import cut, flip, insert
from tests.fuzz.datasets import MUTATIONS, Tree, decode

pytestmark = [pytest.mark.fuzz, pytest.mark.filterwarnings("ignore::UserWarning")]
QUICK, WHOLE = 200, 1500
BLOCK = 100
ROOM_BYTES = 2**30
REFUSED = {0x0117, 0xA900, 0xC000}
"""What a bad data set is answered with (PS3.4 B.2.3); 0xA700 would mean that the disk failed."""


@cache
def seeds() -> tuple[bytes, ...]:
    """Valid data sets: T2W, ADC, diffusion with private b-values, multi-frame."""
    found = [
        mr_image(T2W, 5),
        mr_image(ADC, 5),
        _examined(with_private(0x19, SIEMENS, 0xC, "IS", "800")),
    ]
    found.append(_examined(with_private(0x29, "SIEMENS CSA HEADER", 0x10, "OB", csa(b"1000\0\0"))))
    found.append(_examined(enhanced(6)))
    return tuple(encoded(image) for image in found)


def _examined(image: Dataset) -> Dataset:
    """Give an image of another test the study and patient of this one."""
    own = mr_image(T2W, 9)
    for name in ("StudyInstanceUID", "PatientID", "PatientBirthDate", "PatientName"):
        setattr(image, name, getattr(own, name))
    return image


@cache
def examination() -> tuple[tuple[Dataset, InstanceHeader], ...]:
    """A study that can be analysed: axial T2W and ADC."""
    images = series(T2W) + series(ADC)
    return tuple((i, read_header(encoded(i), ExplicitVRLittleEndian)) for i in images)


def mutated(chance: random.Random) -> tuple[bytes, str]:
    """A data set with one to three things wrong, and the transfer syntax it is sent with."""
    explicit = chance.random() < 0.7
    tree = Tree(copy.deepcopy(decode(chance.choice(seeds()))), explicit, "<", chance)
    for _ in range(chance.choices((0, 1, 2, 3), (1, 12, 5, 2))[0]):
        chance.choice(MUTATIONS)(tree)
        if not tree.nodes:
            break
    data = tree.bytes()
    if chance.random() < 0.15:
        data = chance.choice((flip, cut, insert))(chance, data)
    syntax = ExplicitVRLittleEndian if explicit else ImplicitVRLittleEndian
    if chance.random() < 0.05:
        syntax = chance.choice((ExplicitVRLittleEndian, ImplicitVRLittleEndian))
    return data, str(syntax)


class Bench:
    """A node of its own for each block: what a block stored can be looked through at its end."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self._folder = Path()
        self.node: Node

    @contextmanager
    def block(self) -> Iterator[None]:
        self._folder = Path(tempfile.mkdtemp(dir=fast_folder()))
        data_dir = self._folder / "data"
        data_dir.mkdir()
        (data_dir / "node.sqlite3").write_bytes(migrated())
        self.node = Node(data_dir, ManualClock())
        self.accepted: list[tuple[bytes, str, str]] = []
        try:
            self.node.send_all([image for image, _ in examination()[::4]])
            yield
            self._look_through()
        finally:
            self.node.ingest.stop()
            self.node.store.close()
            shutil.rmtree(self._folder)

    def case(self, chance: random.Random) -> None:
        """Receive one data set; what was accepted must be of use to every reader."""
        data, syntax = mutated(chance)
        sop_class, sop_instance = _names(data, syntax, chance)
        answer = self.node.ingest.accept(
            dataset_bytes=data, transfer_syntax_uid=syntax, sop_class_uid=sop_class,
            sop_instance_uid=sop_instance, calling_ae="MR1", called_ae="PROSTATE_AI",
        )  # fmt: skip
        self.outcomes[f"{answer.status:04X}"] += 1
        assert len(answer.comment) <= 64
        assert answer.comment.isascii()
        assert answer.comment.isprintable()
        if answer.status:
            assert answer.status in REFUSED
            return
        header = read_header(data, syntax)
        self.accepted.append((data, header.study_uid, header.sop_instance_uid))
        assert InstanceHeader.from_json(header.to_json()) == header
        _storable(instance_row(header, syntax, "0" * 64, len(data), self.node_source()))
        self._choose(header, data, syntax, chance)

    @staticmethod
    def node_source() -> object:
        from dicom_node.flow.spool import Source

        return Source()

    def _choose(
        self, header: InstanceHeader, data: bytes, syntax: str, chance: random.Random
    ) -> None:
        """Put it into an examination that is complete, in place of an image or beside it."""
        images = {h.sop_instance_uid: i for i, h in examination()}
        headers = [h for _, h in examination() if h.sop_instance_uid != header.sop_instance_uid]
        chosen = select([*headers, header])
        chosen.input_key()
        self.outcomes[f"selection: {chosen.problem}"] += 1
        if chosen.problem is None and chance.random() < 0.2:
            self._read(chosen, images, {header.sop_instance_uid: (data, syntax)})

    def _read(
        self, chosen: Selection, images: dict[str, Dataset], new: dict[str, tuple[bytes, str]]
    ) -> None:
        def load(sop_instance_uid: str) -> Dataset:
            if sop_instance_uid in new:
                data, syntax = new[sop_instance_uid]
                image = pydicom.dcmread(io.BytesIO(_part10(data, syntax)))
            else:
                image = images[sop_instance_uid]
                image.file_meta = FileMetaDataset()
                image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            return image

        try:
            build_case(chosen, load)
            self.outcomes["read"] += 1
        except (InputProblem, CoreError):
            self.outcomes["read: refused"] += 1

    def _look_through(self) -> None:
        """G1: all that was accepted is there, byte by byte. G2: the studies can be decided on."""
        node = self.node
        if len(self.accepted) % 2:  # half of the blocks: from the journal, after a crash
            node.ingest._journal.close()
            node.store.close()
            node.open()
            node.ingest._filing.file_leftovers()
        else:
            node.ingest.file_pending()
        kept: dict[tuple[str, str], list[bytes]] = {}
        for study in {study for _, study, _ in self.accepted}:
            rows = node.store.instances_of(study)
            for row in rows:
                kept.setdefault((study, row.sop_instance_uid), []).append(
                    read_dataset(node.data_dir, row)
                )
            for conflict in node.store.conflicts_of(study):
                path = node.data_dir / conflict.path
                kept.setdefault((study, conflict.sop_instance_uid), []).append(path.read_bytes())
        for data, study, uid in self.accepted:
            found = kept.get((study, uid), [])
            assert any(one == data or one.endswith(data) for one in found), f"{uid} is lost"
        node.clock.advance(3600)
        node.evaluate()
        reasons = {row["reason"] for row in node.store.studies_list()}
        assert "internal_error" not in reasons
        self.outcomes.update(f"study: {reason}" for reason in reasons)


def _names(data: bytes, syntax: str, chance: random.Random) -> tuple[str, str]:
    """The UIDs of the command: those of the data set, or what a peer might claim."""
    if chance.random() < 0.05:
        return "1.2.840.10008.5.1.4.1.1.4", chance.choice(("", "..", "1.2.3", "9" * 65, "1.2\0"))
    try:
        header = read_header(data, syntax)
    except Exception:  # which is for `accept` to judge
        return "1.2.840.10008.5.1.4.1.1.4", f"{STUDY}.1.6"
    return header.sop_class_uid, header.sop_instance_uid


def _storable(row: InstanceRow) -> None:
    """Every text of a row can be stored in SQLite and in PostgreSQL."""
    for item in fields(row):
        text = getattr(row, item.name)
        if isinstance(text, str):
            text.encode()
            assert "\0" not in text, item.name
    for text in (row.identity.patient_id, row.identity.issuer, row.identity.birth_date):
        text.encode()
        assert "\0" not in text
    assert is_uid(row.study_uid)
    assert is_uid(row.series_uid)
    assert is_uid(row.sop_instance_uid)


def _part10(data: bytes, syntax: str) -> bytes:
    value = syntax.encode() + b"\0" * (len(syntax) % 2)
    element = struct.pack("<HH2sH", 2, 0x10, b"UI", len(value)) + value
    length = struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(element))
    return bytes(128) + b"DICM" + length + element + data


@contextmanager
def limited_memory(room_bytes: int) -> Iterator[None]:
    """A data set that makes the process want much more fails at once."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + room_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def run(count: int) -> None:
    campaign = Campaign("mutated data sets through the receive path", count, block=BLOCK)
    bench = Bench()

    def block(cases: range) -> None:
        try:
            with bench.block():
                campaign.each(cases, lambda _, chance: bench.case(chance), 30.0)
        except AssertionError as error:
            campaign.fail(cases.start, f"block: {error}")

    with bench.block():  # what a first use loads is no growth
        for number in range(400):
            bench.case(random.Random(number))
    bench.outcomes.clear()
    with bounded_growth(campaign, 32), limited_memory(ROOM_BYTES):
        for cases in campaign.blocks():
            block(cases)
    print(f"\noutcomes: {dict(sorted(bench.outcomes.items()))}")
    campaign.finish()
    assert count < QUICK or bench.outcomes["0000"] > count / 20, "too few come through"


def test_G1_G5_mutated_data_sets_quick() -> None:
    run(QUICK)


@pytest.mark.slow
def test_G1_G5_mutated_data_sets() -> None:
    run(count_of("FUZZ_DATASETS", WHOLE))
