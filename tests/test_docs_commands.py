"""Every command in the documentation is run, or held against the program it calls.

How a block is tested stands behind its language, see `tests/pages.py` and `docs/developing.md`.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import pytest
from pydicom import dcmread

from ai_core.adapt.plan import AdaptPlan
from ai_core.train.site_list import SiteList
from dicom_node.clock import SystemClock
from dicom_node.config import NodeConfig, load_config
from dicom_node.net.standin import PacsStandIn
from dicom_node.phantom import packaged_study
from dicom_node.store.store import Store
from tests.annotations.make import verified
from tests.command_server import CommandServer
from tests.documented import calls, wrong_call, wrong_mention, wrong_paths, wrong_targets
from tests.e2e.test_annotations import filed
from tests.interop.peers import free_port
from tests.net.certificates import Authority
from tests.pages import LANGUAGES, ROOT, Block, blocks, inline_code, pages
from tests.releases import light, repackage
from tests.running import NodeUnderTest, pacs_peer, wait_until
from tests.studies import study_uid

TABLES = {"": NodeConfig, "adapt plan": AdaptPlan, "site list": SiteList}
"""What a TOML block describes, by the words behind its language."""
OTHERS_OPTIONS = {"--report"}  # of tools/multi_site.py
SETTINGS_OF_OTHERS = {"model.sha256"}  # a key of result.json

ALL = blocks()
SHELL = [block for block in ALL if block.shell]
RUN = [block for block in SHELL if block.how.split(" ")[0] == "run"]


def named(block: Block) -> str:
    return str(block).replace("docs/", "")


def test_every_block_says_what_it_is() -> None:
    nameless = [str(block) for block in ALL if block.language not in LANGUAGES]
    assert nameless == [], f"name the language of these blocks, one of {sorted(LANGUAGES)}"
    untested = [
        str(block) for block in SHELL
        if not re.fullmatch(r"run( serve)?|test: \S+|parse: .+", block.how)
    ]  # fmt: skip
    assert untested == [], (
        "these shell blocks say not how they are tested: write ```sh run, ```sh run serve, "
        "```sh test: FILE or ```sh parse: WHY (docs/developing.md)"
    )


@pytest.mark.parametrize("block", [b for b in SHELL if b not in RUN], ids=named)
def test_what_is_not_run_here_is_understood(block: Block) -> None:
    for command in block.commands:
        problems = [wrong_call(*call) for call in calls(command)]
        problems += [*wrong_paths(command), *wrong_targets(command)]
        assert not any(problems), (command, problems)


@pytest.mark.parametrize("block", [b for b in SHELL if b.how.startswith("test: ")], ids=named)
def test_the_test_that_a_block_names_holds_its_commands(block: Block) -> None:
    file = ROOT / block.how.removeprefix("test: ")
    assert file.is_file(), f"{block} names {file}, which is not there"
    text = file.read_text(encoding="utf-8")
    if Path(block.page).name in text:  # it takes the commands from the page
        return
    for command in block.commands:
        for _, arguments in calls(command):
            said = [*takewhile(str.isalpha, arguments), *(a for a in arguments if a[:2] == "--")]
            missing = [one for one in said if f'"{one}"' not in text and one != "--config"]
            assert not missing, f"{file} has no {missing} of: {command}"


def test_what_stands_in_backticks_exists() -> None:
    problems = []
    for page in pages():
        for code in inline_code(page):
            if not code.strip() or code.split()[0] in OTHERS_OPTIONS:
                continue
            found = [wrong_mention(code), *wrong_paths(code), *wrong_targets(code)]
            found += _wrong_settings(code)
            problems += [f"{page.relative_to(ROOT)}: `{code}`: {one}" for one in found if one]
    assert problems == []


def _wrong_settings(code: str) -> list[str]:
    match = re.fullmatch(r"(\w+)\.(\w+)( = .*)?", code)
    section = NodeConfig.model_fields.get(match[1]) if match else None
    if match is None or section is None or f"{match[1]}.{match[2]}" in SETTINGS_OF_OTHERS:
        return []
    known = getattr(section.annotation, "model_fields", {})
    return [] if match[2] in known else [f"no setting {match[2]} in [{match[1]}]"]


@pytest.mark.parametrize("block", [b for b in ALL if b.language == "toml"], ids=named)
def test_settings_in_the_pages_are_settings(block: Block) -> None:
    assert block.how in TABLES, f"{block}: ```toml alone, or of {sorted(TABLES)[1:]}"
    TABLES[block.how].model_validate(tomllib.loads(block.text))


@dataclass(frozen=True)
class Sandbox:
    """A stopped node that has delivered one study, to be copied, and what its names stand for."""

    folder: Path
    commands: CommandServer
    names: dict[str, str]

    def run(self, block: Block, folder: Path) -> subprocess.CompletedProcess[str]:
        """Run a block in a copy of the node's folder."""
        shutil.copytree(self.folder, folder)
        config, port = folder / "node.toml", free_port()
        text = config.read_text(encoding="utf-8")
        config.write_text(
            text.replace("enabled = false\nport = 0", f"enabled = true\nport = {port}"),
            encoding="utf-8",
        )
        script = block.script
        for name, value in {**self.names, "127.0.0.1:8042": f"127.0.0.1:{port}"}.items():
            script = script.replace(name, value)
        if block.how == "run serve":
            script = f"dicom-node serve --config node.toml\n{script}"
        return self.commands.shell(script, folder)


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandServer]:
    server = CommandServer(tmp_path_factory.mktemp("commands") / "bin")
    yield server
    server.close()


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory, commands: CommandServer) -> Iterator[Sandbox]:
    """One node for all pages: it has delivered a study to a PACS that still answers."""
    folder = tmp_path_factory.mktemp("sandbox")
    with (
        PacsStandIn("ARCHIVE", folder / "archive") as archive,
        PacsStandIn("PACS", folder / "pacs") as pacs,
    ):
        peer = pacs_peer(archive.port, name="archive", ae_title="ARCHIVE")
        node = NodeUnderTest(folder / "node", peer + _tls(folder), web=False)
        study = _deliver(node, archive)
        head = _prepare(node, commands)
        yield Sandbox(node.folder, commands, {
            "--host 10.0.0.5 --port 104": f"--host 127.0.0.1 --port {pacs.port}",
            "STUDY_UID": study,
            "NUMBER:HASH": head,
        })  # fmt: skip


def _tls(folder: Path) -> str:
    authority = Authority(folder / "ca")
    own = authority.issue("node", "127.0.0.1")
    return f'[tls]\ncertificate = "{own.certificate}"\nkey = "{own.key}"\nca = "{authority.file}"\n'


def _deliver(node: NodeUnderTest, archive: PacsStandIn) -> str:
    """Let the node analyse the packaged study, less what takes time, and stop it."""
    files = []
    for series in ("003-t2w-axial", "005-dwi", "008-adc"):
        for file in sorted((packaged_study() / series).iterdir()):
            image = dcmread(file)
            image.StationName = "SKYRA"
            files.append(node.folder.parent / f"{series}-{file.name}")
            image.save_as(files[-1])
    node.start()
    archive.send(files, host="127.0.0.1", port=node.port, ae_title="PROSTATE_AI")
    uid = study_uid(files)
    wait_until(lambda: archive.filed(uid), 240, "results")  # cheaper to ask than the database
    node.wait_for(uid, {"delivered"}, 60)
    _annotate(node, archive, uid)
    assert node.stop() == 0
    node.rewrite(0)
    return uid


def _annotate(node: NodeUnderTest, archive: PacsStandIn, uid: str) -> None:
    """A radiologist verifies the report in the archive, which routes it to the node."""
    report = verified(filed(archive, uid, "prostate report"))
    file = node.folder.parent / "verified.dcm"
    report.save_as(file)
    archive.send([file], host="127.0.0.1", port=node.port, ae_title="PROSTATE_AI")
    store = Store(load_config(node.config_file).database_url, clock=SystemClock())
    try:
        wait_until(
            lambda: any(row.state == "used" for row in store.annotations_of(uid)), 120, "annotated"
        )
    finally:
        store.close()


def _prepare(node: NodeUnderTest, commands: CommandServer) -> str:
    """Give the stopped node what the pages speak of; returns the head of its audit trail."""
    repackage(node.folder / "site-a", "site-a")
    light(node.folder / "adapt-2" / "release", "skyra")
    (node.folder / "to-annotate.json").write_text(json.dumps({"wanted": []}))
    done = commands.shell(
        "(dicom-node models keys make lab; dicom-node models sign site-a --key lab; "
        "dicom-node models add site-a) > prepared.log\n"
        "dicom-node audit verify",
        node.folder,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("block", RUN, ids=named)
def test_the_commands_of_the_pages_do_what_they_say(
    block: Block, sandbox: Sandbox, tmp_path: Path
) -> None:
    done = sandbox.run(block, tmp_path / "here")
    assert done.returncode == 0, f"{block}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
