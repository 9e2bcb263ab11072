"""The science: finds the prostate and suspicious lesions in multi-parametric MRI volumes.

The door is `load_release`, `analyse`, `write_maps`, `write_labelled` and `write_images`, to check a
release without loading it `read_manifest`, `verify_files` and `packaged_release`; the types are in
`ai_core.types`.
These names are resolved on first use, so that importing this package stays free of torch (PEP 562).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ai_core.manifest import packaged_release, read_manifest, verify_files
    from ai_core.picai.write import Labels, write_images, write_labelled
    from ai_core.pipeline import analyse
    from ai_core.predict import write_maps
    from ai_core.release import Release, load_release

__all__ = [
    "Labels",
    "Release",
    "analyse",
    "load_release",
    "packaged_release",
    "read_manifest",
    "verify_files",
    "write_images",
    "write_labelled",
    "write_maps",
]

_HOME = {
    "Labels": "ai_core.picai.write",
    "analyse": "ai_core.pipeline",
    "Release": "ai_core.release",
    "load_release": "ai_core.release",
    "packaged_release": "ai_core.manifest",
    "read_manifest": "ai_core.manifest",
    "verify_files": "ai_core.manifest",
    "write_images": "ai_core.picai.write",
    "write_labelled": "ai_core.picai.write",
    "write_maps": "ai_core.predict",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ai_core' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
