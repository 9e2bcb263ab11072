"""Table and plot of the experiment, from the cells that are finished."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ai_core.adapt.experiment import BEFORE, IN_DOMAIN, PROFILE, Lab
from ai_core.evaluate.metrics import interval

Floats = npt.NDArray[np.float64]
TABLE, PLOT = "README.md", "figures.png"
REPEATS = 2000
HEAD = """# Adaptation on simulated sites

{finished} of {total} cells are finished (a cell: one site, seed and arm). {complete} of {units}
pairs of site and seed have all arms; a table is of those alone. Simulated cases: nothing here says
anything about patients.

```sh parse: days of computing
ai-core experiment adapt --config {config} --work WORK --out {out}
```
"""
COLUMNS = (
    "\n| Arm | AUROC by case | AP by lesion | Log loss | Gain in AUROC (95 %) | Gap recovered "
    "| Change elsewhere (95 %) |\n|---|---|---|---|---|---|---|\n"
)
NOTES = """
Mean over pairs of site and seed; intervals are percentiles of a bootstrap over them. *before*: the
start (the packaged networks, trained on at a quarter of the voxels); *profile*: stage (a) on {pool}
unlabelled studies; *uncertain-N*, *random-N*: profile, calibration and fine-tuning on N annotated
studies, chosen and learned in the order of uncertainty or by chance; *in-domain*: the same start
and stages on {in_domain} annotated studies. *Gap recovered*: mean gain over that of in-domain.
*Elsewhere*: AUROC on {general} studies of other sites. Figures of a site: {test} studies each.

![AUROC by number of annotated studies](figures.png)
"""


@dataclass(frozen=True)
class Unit:
    """One site and seed with all arms: figures by arm, of the site and of the general set."""

    site: Mapping[str, Mapping[str, float]]
    general: Mapping[str, Mapping[str, float]]


def summarise(lab: Lab, config: Path, out: Path) -> str:
    """Write table and plot of the finished cells; returns the table."""
    cells = {
        cell: json.loads((out / cell.file).read_text(encoding="utf-8"))
        for cell in lab.cells()
        if (out / cell.file).exists()
    }
    by_unit: dict[tuple[str, int], dict[str, dict[str, Any]]] = {}
    for cell, content in cells.items():
        by_unit.setdefault((cell.site, cell.seed), {})[cell.arm] = content
    arms = lab.plan.arms
    units = [
        Unit({a: u[a]["figures"] for a in arms}, {a: u[a]["general"] for a in arms})
        for u in by_unit.values()
        if set(arms) <= set(u)
    ]
    text = HEAD.format(
        finished=len(cells),
        total=len(list(lab.cells())),
        complete=len(units),
        units=len(lab.sites) * len(lab.plan.seeds),
        config=config,
        out=out,
    )
    if units:
        text += COLUMNS + "".join(_row(arm, units) for arm in arms)
        plan = lab.plan
        text += NOTES.format(
            pool=plan.pool, in_domain=plan.in_domain, test=plan.test, general=plan.general
        )
        _plot(units, lab.plan.sizes, out / PLOT)
    (out / TABLE).write_text(text, encoding="utf-8")
    return text


def _row(arm: str, units: Sequence[Unit]) -> str:
    def mean(name: str) -> float:
        return float(np.mean([unit.site[arm][name] for unit in units]))

    gain = _gains(arm, units, "site")
    whole = float(_gains(IN_DOMAIN, units, "site").mean())
    share = f"{gain.mean() / whole:.0%}" if whole > 0 and arm != BEFORE else "-"
    cells = [
        arm,
        f"{mean('auroc'):.3f}",
        f"{mean('average_precision'):.3f}",
        f"{mean('log_loss'):.3f}",
        "-" if arm == BEFORE else _with_interval(gain),
        share,
        "-" if arm == BEFORE else _with_interval(_gains(arm, units, "general")),
    ]
    return f"| {' | '.join(cells)} |\n"


def _gains(arm: str, units: Sequence[Unit], where: str) -> Floats:
    rows = [unit.site if where == "site" else unit.general for unit in units]
    return np.array([row[arm]["auroc"] - row[BEFORE]["auroc"] for row in rows])


def _with_interval(values: Floats) -> str:
    if len(values) < 2:
        return f"{values.mean():+.3f}"
    rng = np.random.default_rng(1)
    means = rng.choice(values, (REPEATS, len(values))).mean(axis=1)
    low, high = interval(means)
    return f"{values.mean():+.3f} ({low:+.3f} to {high:+.3f})"


def _plot(units: Sequence[Unit], sizes: Sequence[int], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 4.0), layout="constrained")
    axes = figure.subplots()
    for kind, mark in (("uncertain", "o-"), ("random", "s--")):
        means = [
            float(np.mean([unit.site[f"{kind}-{size}"]["auroc"] for unit in units]))
            for size in sizes
        ]
        axes.plot(sizes, means, mark, label=f"annotated in {kind} order")
    for arm, style in ((BEFORE, ":"), (PROFILE, "-."), (IN_DOMAIN, "--")):
        level = float(np.mean([unit.site[arm]["auroc"] for unit in units]))
        axes.axhline(level, linestyle=style, color="gray", label=arm)
    axes.set_xlabel("annotated studies")
    axes.set_ylabel(f"AUROC by case, mean of {len(units)} sites and seeds")
    axes.set_xticks(list(sizes))
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)
