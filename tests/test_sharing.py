"""Which file systems hold locks between hosts."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node.sharing import FileSystem, file_system_of

MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro
40 22 0:40 / /srv/spool rw,relatime - nfs4 nas:/spool rw,vers=4.1,hard,local_lock=none
41 22 0:41 / /srv/old\\040spool rw - nfs nas:/old rw,vers=3,nolock
42 40 0:42 / /srv/spool/inner rw - cifs //nas/x rw,vers=3.1.1
43 22 0:43 / /scratch rw - lustre 10.0.0.1@tcp:/l rw,flock
44 22 0:44 / /fast rw - lustre 10.0.0.1@tcp:/l rw,localflock
45 22 0:45 / /half rw - nfs4 nas:/half rw,vers=4.0,local_lock=flock
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    file = tmp_path / "mountinfo"
    file.write_text(MOUNTS)
    return file


@pytest.mark.parametrize(
    ("folder", "kind", "local", "holds"),
    [
        ("/var/lib/node", "ext4", True, True),
        ("/srv/spool/data", "nfs4", False, True),
        ("/srv/old spool/data", "nfs", False, False),
        ("/srv/spool/inner/data", "cifs", False, False),
        ("/srv/spools", "ext4", True, True),
        ("/scratch", "lustre", False, True),
        ("/fast/x", "lustre", False, False),
        ("/half/x", "nfs4", False, False),
    ],
)
def test_locks_between_hosts(table: Path, folder: str, kind: str, local: bool, holds: bool) -> None:
    found = file_system_of(Path(folder), table)
    assert found is not None
    assert (found.kind, found.local, found.holds_locks) == (kind, local, holds)


def test_a_lustre_without_an_option_holds_none() -> None:
    assert not FileSystem("lustre", frozenset({"rw"})).holds_locks


def test_where_the_system_does_not_tell_nothing_is_said(tmp_path: Path) -> None:
    assert file_system_of(tmp_path, tmp_path / "none") is None
    assert file_system_of(Path("/")) is not None
