"""Draw the plot of a made-up scanner whose signal drops: the picture of docs/models.md.

`python tools/drift_example.py FILE.png` lets 320 studies of one scanner into an empty database,
their figures drawn from fixed distributions (seed 7), not measured on images. After the 260th the
signal to noise falls by a quarter and the in-plane voxel grows, as after a change of the protocol.
Then the product judges and draws as it does for a site.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import tempfile
from pathlib import Path

import numpy as np

from dicom_node.clock import ManualClock
from dicom_node.config import NodeConfig
from dicom_node.drift_plot import draw
from dicom_node.flow.drift import look
from dicom_node.store.store import Store

STUDIES, CHANGED_AFTER, SEED = 320, 260, 7
RELEASE = "a" * 64


def values(number: int, random: np.random.Generator) -> dict[str, float | str]:
    """Return the figures of one study."""
    changed = number >= CHANGED_AFTER
    findings = float(random.poisson(1.1))
    return {
        "snr_t2w": round(float(random.normal(24, 3)) * (0.75 if changed else 1), 2),
        "snr_dwi": round(float(random.lognormal(2.2, 0.25)), 2),
        "gland_overlap_dwi_t2w": round(float(random.beta(40, 4)), 3),
        "out_of_distribution": round(float(random.gamma(4, 0.4)), 2),
        "t2w_spacing_mm": 0.625 if changed else 0.5,
        "t2w_slice_mm": 3.0,
        "diffusion_spacing_mm": 1.5,
        "b_values": "0 50 800",
        "images": "t2w adc high_b dce" if random.random() < 0.6 else "t2w adc high_b",
        "likelihood": round(float(random.beta(1.2, 2.2)), 3),
        "findings": findings,
        "lesions_ml": round(findings * float(random.lognormal(-0.6, 0.7)), 2),
        "gland_ml": round(float(random.lognormal(3.8, 0.35)), 1),
        "outcome": "analysed" if random.random() < 0.97 else "no_diffusion",
    }


def fill(database: Path) -> None:
    """Write the studies and what was measured on them."""
    random = np.random.default_rng(SEED)
    with sqlite3.connect(database) as db:
        db.execute(
            "INSERT INTO scanners (id, station, manufacturer, model, field_strength_t, studies)"
            " VALUES (1, 'MR-EXAMPLE', 'Made up', 'Example', 3.0, ?)",
            [STUDIES],
        )
        for number in range(STUDIES):
            at_s = 1_700_000_000.0 + 28_800 * number
            db.execute(
                "INSERT INTO studies (id, study_uid, first_received_at, last_image_at, change_no,"
                " evaluated_no, has_images) VALUES (?, ?, ?, ?, 1, 1, 1)",
                [number + 1, f"2.25.{number + 1}", at_s, at_s],
            )
            db.execute(
                "INSERT INTO observations (study_id, scanner_id, revision, at, release_sha256,"
                " values_json) VALUES (?, 1, 1, ?, ?, ?)",
                [number + 1, at_s, RELEASE, json.dumps(values(number, random))],
            )


def main(arguments: list[str]) -> int:
    """Draw; returns the exit status."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python tools/drift_example.py FILE.png\n")
        return 2
    with tempfile.TemporaryDirectory() as folder:
        config = NodeConfig.model_validate({"node": {"data_dir": folder}})
        Store(config.database_url, clock=ManualClock(), create=True).close()
        fill(Path(folder) / "node.sqlite3")
        store = Store(config.database_url, clock=ManualClock())
        try:
            (row,) = store.scanners()
            report = look(store, config, row)
            draw(store, report, Path(arguments[0]))
        finally:
            store.close()
    sys.stdout.write(f"{report.row.scanner}: {report.state}: {', '.join(sorted(report.alarms))}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
