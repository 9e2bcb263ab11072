"""`docs/getting-started.md`, block by block, as an administrator copies it into a terminal.

Everything comes from the page, in its order, in one shell and an empty folder, against Orthanc with
the configuration that Debian installs. Three things differ from a fresh machine, and are put in
the place of the page's words below: the step that makes the environment is satisfied by this
one; the values of the second step are free ports and a copy of `/etc/orthanc`; `sudo` and
`systemctl restart orthanc` act on that copy (Orthanc's own restart reads its files anew).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.command_server import CommandServer
from tests.interop.peers import end, free_port, require, wait_for_port
from tests.pages import ROOT, Block, blocks_of

PAGE = ROOT / "docs" / "getting-started.md"
DEBIAN = Path("/etc/orthanc/orthanc.json")
PASSWORD = "first words of an administrator"
READING_WORDS_PER_MIN = 200
TYPING_CHARACTERS_PER_MIN = 200
PRELUDE = """
set -eo pipefail
sudo() { "$@"; }
systemctl() {
    [ "$*" = "restart orthanc" ]
    curl -sf http://127.0.0.1:$ORTHANC_HTTP/tools/reset -d ''
    timeout 60 sh -c "until curl -s http://127.0.0.1:$ORTHANC_HTTP/modalities | grep prostate-node
        do sleep 0.2; done"
}
"""


def steps() -> list[Block]:
    """The shell blocks of the page, in order, less the one that installs."""
    first, *others = [block for block in blocks_of(PAGE) if block.shell]
    assert "pip install" in first.text
    return others


def test_it_takes_less_than_ten_minutes_to_read_and_type() -> None:
    text = PAGE.read_text(encoding="utf-8")
    typed = sum(len(command) for block in blocks_of(PAGE) for command in block.commands)
    words = len(re.sub(r"^```.*?^```", "", text, flags=re.M | re.S).split())
    minutes = words / READING_WORDS_PER_MIN, typed / TYPING_CHARACTERS_PER_MIN
    print(f"{words} words, {typed} characters: {minutes[0]:.1f} + {minutes[1]:.1f} min")
    assert sum(minutes) < 10


class DebianOrthanc:
    """Orthanc on a copy of the configuration that its Debian package installs."""

    def __init__(self, folder: Path) -> None:
        if not DEBIAN.exists():
            require("Orthanc")
            pytest.skip(f"{DEBIAN} is not there")
        self.folder, self.dicom_port, self.http_port = folder, free_port(), free_port()
        storage = folder.with_name("orthanc-storage")
        folder.mkdir()
        text = DEBIAN.read_text(encoding="utf-8")
        for setting, value in {
            "DicomPort": self.dicom_port, "HttpPort": self.http_port, "StableAge": 2,
            "StorageDirectory": f'"{storage}"', "IndexDirectory": f'"{storage}"', "Plugins": "[]",
        }.items():  # fmt: skip
            pattern = rf'^  "{setting}" : (?:\[[^]]*\]|[^,\n]*)(,?)'
            text, found = re.subn(pattern, rf'  "{setting}" : {value}\1', text, flags=re.M)
            assert found == 1, setting
        (folder / "orthanc.json").write_text(text, encoding="utf-8")
        with folder.with_name("orthanc.log").open("wb") as log:
            self._process = subprocess.Popen(
                [require("Orthanc"), str(folder)], stdout=log, stderr=subprocess.STDOUT
            )
        wait_for_port(self.http_port, self._process)
        wait_for_port(self.dicom_port, self._process)

    def close(self) -> None:
        end(self._process)


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[DebianOrthanc]:
    program = DebianOrthanc(tmp_path / "etc-orthanc")
    yield program
    program.close()


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Path]:
    """What step 1 leaves: a checkout with an environment that has the node."""
    here = tmp_path / "prostate-node"
    here.mkdir()
    shutil.copytree(ROOT / "deploy", here / "deploy")
    server = CommandServer(here / ".venv" / "bin")
    yield here
    server.close()


def _script(blocks: list[Block], orthanc: DebianOrthanc, web_port: int) -> str:
    values = {
        "ORTHANC_DICOM=4242": f"ORTHANC_DICOM={orthanc.dicom_port}",
        "ORTHANC_HTTP=8042": f"ORTHANC_HTTP={orthanc.http_port}",
        "ORTHANC_ETC=/etc/orthanc": f"ORTHANC_ETC={orthanc.folder}",
        "NODE_DICOM=11112": f"NODE_DICOM={free_port()}",
        "NODE_WEB=8043": f"NODE_WEB={web_port}",
    }
    names = blocks[0].text
    for written, here in values.items():
        assert names.count(written) == 1
        names = names.replace(written, here)
    marked = [f"echo '== {block.line}'\n{block.text}" for block in blocks[1:]]
    stop = "kill %1; wait %1"  # the terminal closes; the node drains
    return "\n".join([PRELUDE, names, *marked, "echo '== done'; read -r _", stop])


@pytest.mark.slow
@pytest.mark.interop
@pytest.mark.timeout(600)
@pytest.mark.parametrize("real", [False, pytest.param(True, marks=pytest.mark.real_data)])
def test_the_page_works_as_it_stands(
    real: bool, orthanc: DebianOrthanc, clone: Path, request: pytest.FixtureRequest
) -> None:
    blocks = steps()
    if real:  # an examination of one's own, as step 6 allows
        shutil.copytree(request.getfixturevalue("prostatex_0000"), clone / "study")
        blocks = [block for block in blocks if "phantom" not in block.text]
    web_port = free_port()
    shell = subprocess.Popen(
        ["bash", "-c", _script(blocks, orthanc, web_port)], cwd=clone, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True,
        env={
            **os.environ, "PATH": f"{clone / '.venv' / 'bin'}:{os.environ['PATH']}",
            "NO_PROXY": "*",
            "OMP_NUM_THREADS": "2",
        },
    )  # fmt: skip
    begun = time.monotonic()
    try:
        said = _read(shell)
        print(f"{said}\n{time.monotonic() - begun:.0f} s")
        _judge(said, web_port)
        assert shell.stdin is not None
        shell.stdin.write("\n")
        shell.stdin.flush()
        assert shell.wait(120) == 0, "the node drains and ends with status 0"
    finally:
        _end(shell)


def _read(shell: subprocess.Popen[str]) -> str:
    """What the terminal shows until the last block is done."""
    assert shell.stdout is not None
    lines: list[str] = []
    for line in shell.stdout:
        lines.append(line)
        if line == "== done\n":
            return "".join(lines)
    raise AssertionError("".join(lines))


def _end(shell: subprocess.Popen[str]) -> None:
    if shell.poll() is None:
        os.killpg(shell.pid, 15)
        shell.wait(120)
    for stream in (shell.stdin, shell.stdout):
        if stream is not None:
            stream.close()


def _judge(said: str, web_port: int) -> None:
    """The words that the page promises, and the login that the link opens."""
    assert "answered the echo" in said
    assert '"state": "delivered"' in said
    results = re.findall(r'"SeriesDescription" : "(.*)"', said)
    kinds = " ".join(results)
    assert all(one in kinds for one in ("gland", "report", "key image")), results
    link = re.search(rf"http://127\.0\.0\.1:{web_port}/welcome/\S+", said)
    assert link is not None, said
    with httpx.Client(trust_env=False, follow_redirects=True, timeout=30) as browser:
        page = browser.get(link[0])
        fields = dict(re.findall(r'name="(\w+)"[^>]*value="([^"]*)"', page.text))
        names = re.findall(r'<input[^>]*type="password"[^>]*name="(\w+)"', page.text) or re.findall(
            r'<input[^>]*name="(\w+)"[^>]*type="password"', page.text
        )
        assert len(names) == 2, page.text
        answer = browser.post(link[0], data={**fields, **dict.fromkeys(names, PASSWORD)})
        assert "Overview" in answer.text, answer.text
