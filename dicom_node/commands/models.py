"""`dicom-node models`: releases of the model; what runs, what ran before, what could run next."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dicom_node.commands import drift, model_keys
from dicom_node.commands.common import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    open_store,
    print_json,
    print_table,
)
from dicom_node.domain.assignment import DEFAULT_SCOPE, Scope
from dicom_node.errors import RegistryError, WrongUseError

if TYPE_CHECKING:
    from dicom_node.config import NodeConfig
    from dicom_node.registry.switch import Named, PreparedSwitch
    from dicom_node.store.store import Store

app = typer.Typer(
    help="Releases of the model: what runs, and what may run next. Live without a restart.",
    no_args_is_help=True,
)
app.add_typer(model_keys.app, name="keys")
app.command("sign")(model_keys.sign)
app.command("drift")(drift.drift)

ReleaseArgument = Annotated[
    str, typer.Argument(help="Name, name/version, first digits of the digest, or packaged.")
]
SenderOption = Annotated[str, typer.Option("--sender", help="AE title of who sends the images.")]
StationOption = Annotated[str, typer.Option("--station", help="Station Name in the images.")]
ProtocolOption = Annotated[
    str, typer.Option("--protocol", help="Pattern of the Protocol Name, with * and ?.")
]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


@app.command("list")
def list_(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """List the releases this node holds, with state and rules."""
    from dicom_node.registry.switch import named_releases

    with open_store(config) as (node_config, store):
        releases = named_releases(node_config, store)
        rules = store.rules()
        pinned = node_config.model.release
    rows = [
        {
            **_as_dict(one),
            "rules": [str(rule.scope) for rule in rules if rule.release_id == one.row.id],
        }
        for one in releases
    ]
    if as_json:
        print_json(rows)
        return
    columns = ("name", "version", "sha256", "state", "parent", "rules")
    print_table("Releases", columns, [_cells(row, columns) for row in rows])
    if pinned:
        typer.echo(f"model.release in the configuration pins {pinned}: the rules are not asked")


@app.command("rules")
def rules_(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """List which release analyses what; the most specific rule wins."""
    from dicom_node.domain.assignment import specificity
    from dicom_node.registry.switch import named_releases

    with open_store(config) as (node_config, store):
        releases = {one.row.id: one for one in named_releases(node_config, store)}
        rules = sorted(store.rules(), key=lambda rule: specificity(rule.scope), reverse=True)
    rows = [
        {
            **asdict(rule.scope),
            "release": releases[rule.release_id].name,
            "sha256": releases[rule.release_id].sha256,
        }
        for rule in rules
    ]
    if as_json:
        print_json(rows)
        return
    columns = ("sender", "station", "protocol", "release", "sha256")
    print_table("Rules", columns, [[row[name] or "any" for name in columns] for row in rows])


@app.command("show")
def show(
    release: ReleaseArgument, config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False
) -> None:
    """Show a release: origin, figures before and after, model card."""
    from ai_core import verify_files
    from dicom_node.registry.shelf import check_whole
    from dicom_node.registry.switch import find_release

    with open_store(config) as (node_config, store):
        found = find_release(node_config, store, release)
        checked = check_whole(node_config, found.row)
    files = verify_files(checked.folder, checked.sha256)
    origin = files.origin.model_dump(mode="json") if files.origin else None
    if as_json:
        told = {"folder": str(checked.folder), "signed_by": checked.signed_by, "origin": origin}
        print_json({**_as_dict(found), **told, "model_card": files.model_card})
        return
    typer.echo(f"{found}, {found.row.state}, signed by {checked.signed_by}, in {checked.folder}")
    if files.origin:
        came = files.origin
        typer.echo(f"made by {came.made_by} from {came.trained_on} cases, seed {came.seed}, "
                   f"parent {came.parent or 'none'}")  # fmt: skip
        rows = [[one.name, one.cases, one.before, one.after] for one in came.figures]
        if rows:
            print_table("Figures", ("figure", "cases", "before", "after"), rows)
    typer.echo(files.model_card)


@app.command("add")
def add(
    folder: Annotated[Path, typer.Argument(help="Folder of a signed release.")],
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Check a release and copy it in as a candidate. Nothing runs it yet."""
    from dicom_node.registry.switch import add_release

    with open_store(config) as (node_config, store):
        added, checked = add_release(node_config, store, folder)
    if as_json:
        print_json({**_as_dict(added), "signed_by": checked.signed_by})
    else:
        typer.echo(f"added {added}, signed by {checked.signed_by}; next: models shadow or activate")


@app.command("verify")
def verify(
    release: Annotated[
        str | None, typer.Argument(help="Release, or a folder; none: every release.")
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Check every file and the signature. Exit status 1 where a release may not run."""
    with open_store(config) as (node_config, store):
        rows = _verified(node_config, store, release)
    if as_json:
        print_json(rows)
    else:
        columns = ("release", "state", "signed_by", "problem")
        print_table("Releases", columns, [_cells(row, columns) for row in rows])
    raise typer.Exit(1 if any(row["problem"] for row in rows) else 0)


def _verified(config: NodeConfig, store: Store, wanted: str | None) -> list[dict[str, Any]]:
    from dicom_node.registry.shelf import CheckedRelease, check_folder, check_whole
    from dicom_node.registry.switch import find_release, named_releases

    todo: list[tuple[str, str, Callable[[], CheckedRelease]]]
    if wanted and Path(wanted).is_dir():
        todo = [(wanted, "not added", partial(check_folder, config, Path(wanted)))]
    else:
        named = [find_release(config, store, wanted)] if wanted else named_releases(config, store)
        todo = [
            (str(one), str(one.row.state), partial(check_whole, config, one.row)) for one in named
        ]
    rows = []
    for name, state, check in todo:
        row: dict[str, Any] = {"release": name, "state": state, "signed_by": None, "problem": None}
        try:
            row["signed_by"] = check().signed_by
        except RegistryError as error:
            row["problem"] = str(error)
        rows.append(row)
    return rows


@app.command("activate")
def activate(
    release: ReleaseArgument,
    yes: YesOption = False,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Let a release analyse every study that no other rule names.

    First everything is checked and the packaged phantom analysed; then you are asked.
    """
    _switch(config, DEFAULT_SCOPE, release, yes=yes, as_json=as_json)


@app.command("assign")
def assign(
    release: Annotated[str, typer.Option("--release", help="Release that analyses them.")],
    sender: SenderOption = "",
    station: StationOption = "",
    protocol: ProtocolOption = "",
    yes: YesOption = False,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Let a release analyse the studies of a sender, station or protocol; as activate does."""
    scope = _scope(sender, station, protocol)
    if scope == DEFAULT_SCOPE:
        raise WrongUseError(
            "no criterion was given", "give --sender, --station or --protocol, or use activate"
        )
    _switch(config, scope, release, yes=yes, as_json=as_json)


def _switch(config: Path, scope: Scope, wanted: str, *, yes: bool, as_json: bool) -> None:
    from dicom_node.registry.switch import commit_switch, prepare_switch
    from dicom_node.rehearse import rehearse

    if not yes and not (sys.stdin.isatty() and not as_json):
        raise WrongUseError("nobody is here to ask", "give --yes")
    with open_store(config) as (node_config, store):
        prepared = prepare_switch(node_config, store, scope, wanted)
        typer.echo("files and signature are right; rehearsing on the phantom", err=True)
        proof = rehearse(node_config, prepared.checked).words()
        if not yes:
            _ask(store, prepared, proof)
        commit_switch(node_config, store, prepared, proof)
    if as_json:
        before = prepared.before.sha256 if prepared.before else None
        print_json({
            "scope": asdict(scope), "release": prepared.release.sha256, "before": before,
            "rehearsal": dict(proof),
        })  # fmt: skip
    else:
        typer.echo(f"{scope}: {prepared.release} from the next study on")


def _ask(store: Store, prepared: PreparedSwitch, proof: list[tuple[str, str]]) -> None:
    """Show what is known of a release beside the one it replaces, and let a person decide."""
    from dicom_node.registry.compare import compare

    for what, value in proof:
        typer.echo(f"{what:24} {value}")
    if prepared.before is not None:
        found = compare(store, prepared.before.sha256, prepared.release.sha256)
        typer.echo(f"{'studies in the shadow':24} {found.studies}")
    typer.echo(f"{'now':24} {prepared.before or 'no rule'}")
    typer.confirm(f"{prepared.scope}: switch to {prepared.release}?", abort=True)


@app.command("rollback")
def rollback(
    sender: SenderOption = "",
    station: StationOption = "",
    protocol: ProtocolOption = "",
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Go back to what was active before; with criteria, of that rule. Again: one step further."""
    from dicom_node.registry.switch import roll_back

    scope = _scope(sender, station, protocol)
    with open_store(config) as (node_config, store):
        leaving, target = roll_back(node_config, store, scope)
    if as_json:
        to = target.sha256 if target else None
        print_json({"scope": asdict(scope), "from": leaving.sha256, "to": to})
    else:
        typer.echo(f"{scope}: {target or 'the rule is gone'}, before {leaving}")


@app.command("unassign")
def unassign(
    sender: SenderOption = "",
    station: StationOption = "",
    protocol: ProtocolOption = "",
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Remove a rule; its studies follow the other rules."""
    from dicom_node.registry import switch

    scope = _scope(sender, station, protocol)
    with open_store(config) as (node_config, store):
        switch.unassign(node_config, store, scope)
    typer.echo(f"removed the rule for {scope}")


@app.command("shadow")
def shadow(
    release: Annotated[str | None, typer.Argument(help="Release to run in the shadow.")] = None,
    off: Annotated[bool, typer.Option("--off", help="Run none.")] = False,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Let a release look at every study beside the active one; nothing of it is sent."""
    from dicom_node.registry.switch import begin_shadow, end_shadow

    if (release is None) != off:
        raise WrongUseError("give a release, or --off", "see dicom-node models list")
    with open_store(config) as (node_config, store):
        if release is None:
            end_shadow(node_config, store)
            typer.echo("no release runs in the shadow")
        else:
            typer.echo(f"in the shadow: {begin_shadow(node_config, store, release)}")


@app.command("reject")
def reject(release: ReleaseArgument, config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Retire a candidate or shadow that was judged unfit."""
    from dicom_node.registry import switch

    with open_store(config) as (node_config, store):
        typer.echo(f"retired {switch.reject(node_config, store, release)}")


@app.command("compare")
def compare_(
    first: ReleaseArgument,
    second: ReleaseArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Show how far two releases agree on the studies that one analysed in the other's shadow."""
    from dicom_node.registry.compare import compare
    from dicom_node.registry.switch import find_release

    with open_store(config) as (node_config, store):
        one, other = (find_release(node_config, store, name) for name in (first, second))
        found = compare(store, one.sha256, other.sha256)
    if as_json:
        print_json({"first": one.sha256, "second": other.sha256, **asdict(found)})
        return
    rows = [[name.replace("_", " "), _cell(value)] for name, value in asdict(found).items()]
    print_table(f"First {one}, second {other}", ("figure", "value"), rows)
    typer.echo("Agreement says nothing of which one is right.")


def _scope(sender: str, station: str, protocol: str) -> Scope:
    if max(map(len, (sender, station, protocol))) > 64:
        raise WrongUseError("a criterion is longer than 64 characters", "shorten it")
    return Scope(sender.strip(), station.strip(), protocol.strip())


def _as_dict(one: Named) -> dict[str, Any]:
    from dicom_node.store.times import iso

    return {
        "name": one.name, "version": one.version, "sha256": one.sha256,
        "state": str(one.row.state), "packaged": one.row.sha256 is None,
        "parent": one.row.parent, "added_at": iso(one.row.added_at_s),
    }  # fmt: skip


def _cells(row: dict[str, Any], columns: tuple[str, ...]) -> list[object]:
    return [_cell(row[name]) for name in columns]


def _cell(value: object) -> object:
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, list | tuple):
        return "; ".join(str(_cell(one)) for one in value)
    if isinstance(value, dict):
        return ", ".join(f"{name} {one}" for name, one in value.items())
    return value
