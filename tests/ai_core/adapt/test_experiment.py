"""The experiment: cells that stop and go on, and a table of nothing but finished ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ai_core.adapt.experiment import BEFORE, Cell, Lab, read_experiment, run_experiment
from ai_core.adapt.summary import summarise
from ai_core.errors import InputError

CONFIG = Path(__file__).resolve().parents[3] / "configs" / "adapt-experiment.toml"
#: AUROC by arm; before 0.6 and in-domain 0.8: 0.7 is half of the gap.
AUROC = {"before": 0.6, "in-domain": 0.8, "uncertain-40": 0.7}


def _finish(out: Path, cell: Cell) -> None:
    figures = {"auroc": AUROC.get(cell.arm, 0.65), "average_precision": 0.3, "log_loss": 0.6}
    out.mkdir(parents=True, exist_ok=True)
    (out / cell.file).write_text(json.dumps({"figures": figures, "general": figures}))


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(read_experiment(CONFIG), tmp_path / "work")


def test_the_committed_configuration_compares_what_it_says(lab: Lab) -> None:
    cells = list(lab.cells())
    assert len({(cell.site, cell.seed) for cell in cells}) == 9
    assert len({cell.file for cell in cells}) == len(cells) == 81
    assert {f"{kind}-{n}" for kind in ("uncertain", "random") for n in (10, 20, 40)} < {
        cell.arm for cell in cells
    }


def test_a_table_is_of_complete_sites_alone(lab: Lab, tmp_path: Path) -> None:
    cells, out = list(lab.cells()), tmp_path / "out"
    arms = len(lab.plan.arms)
    for cell in cells[: arms - 1]:
        _finish(out, cell)
    text = summarise(lab, CONFIG, out)
    assert "8 of 81 cells are finished" in text
    assert "| Arm |" not in text
    for cell in cells[arms - 1 : 2 * arms + 1]:
        _finish(out, cell)
    text = summarise(lab, CONFIG, out)
    assert "19 of 81 cells are finished" in text
    assert "2 of 9" in text
    (row,) = [line for line in text.splitlines() if line.startswith("| uncertain-40 |")]
    assert "| 0.700 |" in row
    assert "| 50% |" in row
    assert (out / "figures.png").stat().st_size > 1000


def test_finished_cells_are_not_computed_again(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells, out = list(lab.cells()), tmp_path / "out"
    _finish(out, cells[0])
    asked: list[Cell] = []

    def measure(_lab: Lab, cell: Cell) -> dict[str, object]:
        asked.append(cell)
        return {"figures": {}, "general": {}}

    monkeypatch.setattr(Lab, "measure", measure)
    assert run_experiment(lab, out, limit=2) == 3
    assert asked == cells[1:3]
    assert cells[0].arm == BEFORE


def test_studies_of_a_site_are_used_for_one_thing(lab: Lab) -> None:
    """No anatomy is measured and trained on; those of the start are never among them."""
    bench = lab._bench("north", 1)
    numbers = range(60, 900)

    class Spare:
        def __len__(self) -> int:
            return 900

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("ai_core.adapt.experiment.Source", lambda *_, **__: Spare())
        patched.setattr(Lab, "anatomies", Path("anywhere"))
        parts = bench._numbers
    flat = [number for part in parts.values() for number in part]
    assert len(flat) == len(set(flat)) == 100 + 60 + 400
    assert set(flat) <= set(numbers)


def test_a_wrong_experiment_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text("seeds = [1]\n")
    with pytest.raises(InputError, match="is not an experiment"):
        read_experiment(path)
