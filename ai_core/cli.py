"""`ai-core`: the core on volumes, the simulator, and training.

Exit status 0: done; 1: failure; 2: wrong use. Errors are one line on stderr that says what is
wrong and what to do; `--debug` adds the traceback. With `--json` stdout is JSON alone.
"""

from __future__ import annotations

import json
import logging
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ai_core.adapt.commands import adapt, experiment
from ai_core.errors import CoreError

if TYPE_CHECKING:
    from ai_core.sim.sites import Site

app = typer.Typer(
    name="ai-core",
    help="Finds the prostate and suspicious lesions in MRI volumes. Research software.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class Device(StrEnum):
    """Where to compute."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class PrecisionName(StrEnum):
    """What networks compute with."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"


PrecisionOption = Annotated[
    PrecisionName,
    typer.Option("--precision", help="Of the networks; auto: bf16 on CUDA, fp32 elsewhere."),
]
DeviceOption = Annotated[Device, typer.Option("--device", help="Where to compute.")]


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Options of every command."""


@app.command()
def predict(
    t2w: Annotated[Path, typer.Option("--t2w", help="Axial T2W volume.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the results.")],
    adc: Annotated[Path | None, typer.Option("--adc", help="ADC map.")] = None,
    hbv: Annotated[Path | None, typer.Option("--hbv", help="High-b diffusion volume.")] = None,
    hbv_b: Annotated[
        float, typer.Option("--hbv-b", help="b-value of the high-b volume, s/mm2.")
    ] = 1400.0,
    dce: Annotated[
        list[Path] | None, typer.Option("--dce", help="One DCE phase; repeat in time order.")
    ] = None,
    dce_interval: Annotated[
        float, typer.Option("--dce-interval", help="Seconds between DCE phases.")
    ] = 7.0,
    release: Annotated[
        Path | None, typer.Option("--release", help="Release folder; default: the packaged one.")
    ] = None,
    device: DeviceOption = Device.AUTO,
    precision: PrecisionOption = PrecisionName.AUTO,
    synthesis: Annotated[
        bool, typer.Option(help="Compare with synthesised normal tissue, where the release can.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Analyse one examination given as NIfTI, MetaImage or NRRD volumes.

    Needed: T2W and the ADC map. High b and DCE are optional.
    """
    from ai_core.predict import Inputs, Machine, predict_files

    inputs = Inputs(t2w, adc, hbv, hbv_b, tuple(dce or ()), dce_interval)
    report = predict_files(inputs, out, release, Machine(device.value, precision.value, synthesis))
    if as_json:
        typer.echo(json.dumps(report, indent=1))
        return
    _print_summary(report, out)


def _print_summary(report: dict[str, Any], out: Path) -> None:
    gland, findings = report["gland"], report["findings"]
    if findings is None:
        typer.echo(f"not analysable: {report['message']}")
        return
    typer.echo(f"gland {gland['volume_ml']} mL, {len(findings)} finding(s); results in {out}")
    for finding in findings:
        typer.echo(
            f"  {finding['rank']}: {finding['sector']}, {finding['volume_ml']} mL, "
            f"suspicion index {finding['likelihood_percent']} %"
        )


@app.command()
def simulate(
    out: Annotated[Path, typer.Option("--out", help="Folder for the cases.")],
    cases: Annotated[int, typer.Option("--cases", min=1, help="How many.")],
    seed: Annotated[int, typer.Option("--seed", help="Same seed, same cases.")] = 1,
    sites: Annotated[
        Path | None, typer.Option("--sites", help="JSON file with the sites to draw from.")
    ] = None,
    anatomies: Annotated[
        bool,
        typer.Option("--anatomies", help="Only the anatomies that training renders on the fly."),
    ] = False,
    workers: Annotated[
        int, typer.Option("--workers", min=1, help="Processes (with --anatomies).")
    ] = 1,
) -> None:
    """Make simulated examinations. Finished cases of an interrupted run are kept."""
    from ai_core.sim.dataset import build_cache
    from ai_core.sim.export import simulate_to_folder

    drawn = _sites(sites)
    with _progress("simulate") as step:
        if anatomies:
            build_cache(out, cases, seed, sites=drawn, progress=step, workers=workers)
        else:
            simulate_to_folder(out, cases, seed, drawn, step)


@contextmanager
def _progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on stderr; yields what is to be called with (done, total)."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task(title, total=None)

        def step(done: int, total: int) -> None:
            progress.update(bar, completed=done, total=total)

        yield step


def _sites(path: Path | None) -> tuple[Site, ...] | None:
    if path is None:
        return None
    from ai_core.errors import InputError
    from ai_core.sim.sites import load_sites

    try:
        return load_sites(path)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path} is not a sites file: {error}", "Check the file.") from error


@app.command()
def train(
    config: Annotated[Path, typer.Option("--config", help="Configuration (TOML).")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the run and its release.")],
    data: Annotated[
        list[Path] | None, typer.Option("--data", help="Folder of cases; repeat: one data set.")
    ] = None,
    sites: Annotated[
        Path | None,
        typer.Option("--sites", help="List of sites (TOML): one after the other, near to far."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run.")] = False,
    start: Annotated[
        Path | None, typer.Option("--start", help="Release folder whose weights come first.")
    ] = None,
    device: DeviceOption = Device.AUTO,
) -> None:
    """Train a release: gland, localization, classification, joint; then calibrate and package.

    The release appears in the folder `release` of the run. Started by `torchrun`, several
    processes train together (not with --sites).
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    from ai_core.config import read_config
    from ai_core.train.multi_site import train_sites
    from ai_core.train.package import make_release
    from ai_core.train.run import train as train_phases
    from ai_core.train.team import leads_here

    if (not data) == (sites is None):
        raise typer.BadParameter("give --data, or --sites")
    settings = read_config(config)
    if sites is not None:
        values = train_sites(settings, sites, out, resume, device.value, start)
    else:
        weights = train_phases(settings, data or [], out, resume, device.value, start)
        if not leads_here():
            return
        release = out / "release"
        values = make_release(settings, weights, data or [], release, device.value, start)
    for name, value in values.items():
        typer.echo(f"{name:28} {value:.3f}")
    typer.echo(f"release written to {out / 'release'}")


app.command("adapt")(adapt)
app.add_typer(experiment, name="experiment")


class Against(StrEnum):
    """Scores to compare the likelihood with."""

    MAP = "map"
    CLASSIFIER = "classifier"
    FEATURES = "features"
    TISSUE_TABLE = "tissue_table"


class Withheld(StrEnum):
    """Images that can be withheld from the networks."""

    ADC = "adc"
    HIGH_B = "high_b"
    DCE = "dce"


@app.command()
def evaluate(
    data: Annotated[
        list[Path],
        typer.Option("--data", help="Cases: PI-CAI layout, simulated, or cached anatomies."),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for records and report.")],
    release: Annotated[
        Path | None, typer.Option("--release", help="Release folder; default: the packaged one.")
    ] = None,
    against: Annotated[
        list[Against] | None, typer.Option("--against", help="Score to compare with; repeat.")
    ] = None,
    without: Annotated[
        list[Withheld] | None, typer.Option("--without", help="Also without this image; repeat.")
    ] = None,
    sites: Annotated[
        Path | None, typer.Option("--sites", help="Sites that cached anatomies are rendered at.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of rendering cached anatomies.")] = 1,
    cases: Annotated[
        int | None, typer.Option("--cases", min=1, help="Only so many, spread over the data.")
    ] = None,
    inputs: Annotated[
        Path | None, typer.Option("--inputs", help="Keep rendered cases here (about 12 MB each).")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes.")] = 1,
    device: DeviceOption = Device.AUTO,
    precision: PrecisionOption = PrecisionName.AUTO,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Measure a release on labelled cases. Finished cases of an interrupted run are kept.

    Writes evaluation.json, evaluation.md and plots. Several --data folders count as one data set
    (images and labels may lie apart).
    """
    from ai_core.evaluate.one import Plan
    from ai_core.evaluate.report import as_markdown, make_report, write_report
    from ai_core.evaluate.run import Request, run_evaluation
    from ai_core.types import Modality

    rows = tuple(Against) if against is None else tuple(dict.fromkeys(against))
    withheld = tuple(Modality(name.value) for name in dict.fromkeys(without or ()))
    request = Request(
        release=release,
        folders=tuple(data),
        out=out,
        plan=Plan(Against.TISSUE_TABLE in rows, withheld),
        sites=_sites(sites),
        seed=seed,
        limit=cases,
        workers=workers,
        device=device.value,
        precision=precision.value,
        inputs=inputs,
    )
    with _progress("evaluate") as step:
        outcome = run_evaluation(request, step)
    report = make_report(outcome, tuple(row.value for row in rows))
    command = "ai-core " + shlex.join(sys.argv[1:])
    document = write_report(report, outcome, out, command)
    typer.echo(json.dumps(document, indent=1) if as_json else as_markdown(report, outcome, command))


@app.command("sites")
def sites_command(
    out: Annotated[Path, typer.Option("--out", help="JSON file to write.")],
    count: Annotated[int, typer.Option("--count", min=1, help="How many.")] = 10,
    seed: Annotated[int, typer.Option("--seed", help="Same seed, same sites.")] = 1,
) -> None:
    """Draw simulated sites for `simulate` and `evaluate`: scanners that training never saw.

    Training draws another site at every step, from its own random stream.
    """
    from ai_core.evaluate.sources import draw_sites
    from ai_core.sim.sites import site_to_dict

    drawn = [site_to_dict(site) for site in draw_sites(count, seed)]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(drawn, indent=1) + "\n", encoding="utf-8")
    typer.echo(f"{count} sites written to {out}")


def main() -> None:
    """Run the command line and exit with its status."""
    debug = "--debug" in sys.argv
    try:
        app()
    except CoreError as error:
        if debug:
            raise
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
    except OSError as error:
        if debug:
            raise
        typer.echo(f"error: {error}. Check the path, its rights and the disk.", err=True)
        sys.exit(1)
    except Exception as error:
        if debug:
            raise
        typer.echo(f"error: {type(error).__name__}: {error}. Run again with --debug.", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
