"""Whether a data folder can be shared by hosts: its file system must hold locks between them.

Locks tell whose journal is whose (docs/decisions/0023). A file system without them would let one
receiver file, and then delete, what another still writes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_HOLD = frozenset({"nfs4", "ceph", "fuse.ceph", "gpfs", "gfs2", "ocfs2"})
_HOLD_WITH = {"lustre": "flock"}
"""Those that hold locks between hosts where they are mounted with this option."""
_HOLD_NOT = frozenset({"nfs", "cifs", "smb3", "smbfs", "fuse.sshfs", "9p", "fuse.s3fs", "vboxsf"})


@dataclass(frozen=True)
class FileSystem:
    """What a folder stands on. ``kind`` and ``options`` as the kernel names them."""

    kind: str
    options: frozenset[str]

    @property
    def local(self) -> bool:
        """Whether one host alone has it."""
        return self.kind not in {*_HOLD, *_HOLD_WITH, *_HOLD_NOT}

    @property
    def holds_locks(self) -> bool:
        """Whether a lock of one host keeps the others out."""
        if self.local:
            return True
        if self.options & {"nolock", "local_lock=all", "local_lock=flock", "localflock"}:
            return False
        return self.kind in _HOLD or _HOLD_WITH.get(self.kind) in self.options


def file_system_of(folder: Path, table: Path = Path("/proc/self/mountinfo")) -> FileSystem | None:
    """Return the file system of a folder; None where this system does not tell.

    ``table``: mounts as in proc_pid_mountinfo(5).
    """
    try:
        lines = table.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    place, best, found = folder.resolve(), -1, None
    for line in lines:
        mount, _, rest = line.partition(" - ")
        point = Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), mount.split()[4]))
        if len(point.parts) >= best and (place == point or point in place.parents):
            kind, _, options = rest.split(" ", 2)
            told = {*mount.split()[5].split(","), *options.split(",")}
            best, found = len(point.parts), FileSystem(kind, frozenset(told))
    return found
