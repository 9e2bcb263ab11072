"""A release: trained weights with everything that is needed to use and to check them.

Folder: weights of each network (``gland, localizer, classifier``) as safetensors, ``config.json,
calibration.json, significance.json, presence.json, MODEL_CARD.md, manifest.json`` and, optional,
``familiarity.json``, ``site_profile.json``, ``origin.json``, and the branch of abnormality by
synthesis (``synthesis.safetensors``, ``synthesis.json``). The manifest lists the SHA-256 of
every other file; the digest of the manifest names the release in results (`ai_core.manifest`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from ai_core.calibration import Calibration
from ai_core.config import CoreConfig
from ai_core.errors import ReleaseError
from ai_core.familiarity import Familiarity
from ai_core.logistic import LogisticModel
from ai_core.manifest import (
    CARD,
    FAMILIARITY,
    FILES,
    MANIFEST,
    NETWORKS,
    ORIGIN,
    PACKAGED,
    PACKAGED_NAME,
    PROFILE,
    REINSTALL,
    SYNTHESIS,
    SYNTHESIS_FILES,
    packaged_release,
    verify_files,
)
from ai_core.nets.classifier import Classifier
from ai_core.nets.gland import GlandFinder
from ai_core.nets.localizer import MODALITIES, Localizer
from ai_core.nets.synthesis import Generator
from ai_core.origin import Origin
from ai_core.precision import Precision, choose_precision, computing
from ai_core.site_profile import SiteProfile
from ai_core.synthesis.branch import Branch
from ai_core.synthesis.compare import NormalSpread
from ai_core.types import ReleaseInfo

__all__ = [
    "FAMILIARITY", "FILES", "NETWORKS", "PACKAGED", "PACKAGED_NAME", "Release", "build_networks",
    "choose_device", "load_release", "read_weights", "write_release",
]  # fmt: skip


Part = TypeVar("Part", bound=BaseModel)


@dataclass(frozen=True)
class Release:
    """Verified weights on a device, ready to use."""

    info: ReleaseInfo
    config: CoreConfig
    gland: GlandFinder
    localizer: Localizer
    classifier: Classifier
    calibration: Calibration
    significance: LogisticModel
    presence: LogisticModel
    device: torch.device
    precision: Precision = Precision.FP32
    familiarity: Familiarity | None = None
    profile: SiteProfile | None = None
    synthesis: Branch | None = None

    def computing(self) -> AbstractContextManager[None]:
        """Give the context in which its networks run."""
        return computing(self.precision, self.device)


def choose_device(name: str) -> torch.device:
    """``auto``: CUDA where there is one, else the CPU.

    Raises:
        ReleaseError: the device does not exist here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ReleaseError(
            f"device {name} cannot be used: {str(error).splitlines()[0]}", "Use auto or cpu."
        ) from error
    return device


def build_networks(config: CoreConfig) -> tuple[GlandFinder, Localizer, Classifier]:
    """Untrained networks of a configuration."""
    nets = config.nets
    return (
        GlandFinder(nets.gland),
        Localizer(nets.modality, nets.fusion),
        Classifier(nets.classifier),
    )


def load_release(
    path: Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    sha256: str | None = None,
    synthesis: bool = True,
) -> Release:
    """Load and verify a release; ``None`` is the packaged one, whose digest is known.

    ``precision``: ``fp32``, ``bf16``, or ``auto`` (bf16 on CUDA, fp32 elsewhere). ``sha256``: the
    digest that the release must have; None: any. ``synthesis``: whether its branch of abnormality
    by synthesis is used, where it has one.

    Raises:
        ReleaseError: a file is missing or altered, it is another release, a setting is invalid,
            weights do not fit, or the networks give values that are not numbers.
    """
    folder, expected = packaged_release() if path is None else (path, sha256)
    verified = verify_files(folder, expected)
    files, digest = verified.contents, verified.sha256
    config = _parse(CoreConfig.model_validate_json, files["config.json"], "config.json")
    calibration = _parse(Calibration.model_validate_json, files["calibration.json"], "calibration")
    significance, presence = (
        _parse(LogisticModel.model_validate_json, files[name], name)
        for name in ("significance.json", "presence.json")
    )
    where = choose_device(device)
    networks = build_networks(config)
    for name, network in zip(NETWORKS, networks, strict=True):
        _fill(network, name, files[f"{name}.safetensors"])
        network.eval().to(where)
    gland, localizer, classifier = networks
    info = ReleaseInfo(config.name, config.version, digest, calibration.real_cases > 0)
    release = Release(
        info,
        config,
        gland,
        localizer,
        classifier,
        calibration,
        significance,
        presence,
        where,
        choose_precision(precision, where),
        _optional(files, FAMILIARITY, Familiarity),
        _optional(files, PROFILE, SiteProfile),
        _branch(files, config, where) if synthesis else None,
    )
    _probe(release)
    return release


def _branch(files: Mapping[str, bytes], config: CoreConfig, device: torch.device) -> Branch | None:
    """Return the synthesis branch; None where the release has none."""
    there = [name in files for name in SYNTHESIS_FILES]
    if not any(there):
        return None
    if not all(there):
        raise ReleaseError(f"of {' and '.join(SYNTHESIS_FILES)} one is missing", REINSTALL)
    weights, fitted = (files[name] for name in SYNTHESIS_FILES)
    generator = Generator(config.nets.synthesis)
    _fill(generator, SYNTHESIS, weights)
    generator.eval().to(device)
    return Branch(generator, _parse(NormalSpread.model_validate_json, fitted, SYNTHESIS_FILES[1]))


def read_weights(folder: Path) -> list[dict[str, Tensor]]:
    """Return the verified weights of a release, in the order of `NETWORKS`.

    Raises:
        ReleaseError: a file is missing or altered.
    """
    files = verify_files(folder).contents
    return [load_tensors(files[f"{name}.safetensors"]) for name in NETWORKS]


def write_release(
    folder: Path,
    config: CoreConfig,
    weights: dict[str, dict[str, Tensor]],
    calibration: Calibration,
    significance: LogisticModel,
    presence: LogisticModel,
    model_card: str,
    familiarity: Familiarity | None = None,
    origin: Origin | None = None,
    profile: SiteProfile | None = None,
    synthesis: Branch | None = None,
) -> str:
    """Write a release folder, manifest last; returns its digest."""
    contents = {
        f"{name}.safetensors": save_tensors({k: v.contiguous() for k, v in weights[name].items()})
        for name in NETWORKS
    }
    contents["config.json"] = _json(config.model_dump(mode="json"))
    contents["calibration.json"] = _json(calibration.model_dump(mode="json"))
    contents["significance.json"] = _json(significance.model_dump(mode="json"))
    contents["presence.json"] = _json(presence.model_dump(mode="json"))
    if familiarity is not None:
        contents[FAMILIARITY] = _json(familiarity.model_dump(mode="json"))
    if profile is not None:
        contents[PROFILE] = _json(profile.model_dump(mode="json"))
    if synthesis is not None:
        contents |= branch_files(synthesis)
    if origin is not None:
        contents[ORIGIN] = _json(origin.model_dump(mode="json"))
    contents[CARD] = model_card.encode()
    return write_files(folder, contents, config)


def branch_files(branch: Branch) -> dict[str, bytes]:
    """Return the files of a synthesis branch."""
    weights = {k: v.cpu().contiguous() for k, v in branch.generator.state_dict().items()}
    contents = save_tensors(weights), _json(branch.spread.model_dump(mode="json"))
    return dict(zip(SYNTHESIS_FILES, contents, strict=True))


def write_files(folder: Path, contents: Mapping[str, bytes], config: CoreConfig) -> str:
    """Write the files of a release as they are, manifest last; returns its digest."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    listed = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    manifest = _json({"name": config.name, "version": config.version, "files": listed})
    (folder / MANIFEST).write_bytes(manifest)
    return hashlib.sha256(manifest).hexdigest()


def _optional(files: Mapping[str, bytes], name: str, kind: type[Part]) -> Part | None:
    if name not in files:
        return None
    parsed: Part = _parse(kind.model_validate_json, files[name], name)
    return parsed


def _json(data: dict[str, Any]) -> bytes:
    return (json.dumps(data, indent=1, sort_keys=True) + "\n").encode()


def _parse(parser: Any, content: bytes, name: str) -> Any:
    try:
        return parser(content)
    except ValueError as error:
        raise ReleaseError(f"{name} of the release is not valid: {error}", REINSTALL) from error


def _fill(network: nn.Module, name: str, content: bytes) -> None:
    try:
        network.load_state_dict(load_tensors(content))
    except (RuntimeError, SafetensorError, KeyError) as error:
        first = str(error).splitlines()[0]
        raise ReleaseError(f"the weights of {name} do not fit: {first}", REINSTALL) from error


@torch.inference_mode()
def _probe(release: Release) -> None:
    """Run each network once on a small constant input; refuse what is not a number."""
    config, device = release.config, release.device
    present = torch.ones(len(MODALITIES), device=device)
    zones = release.gland(torch.zeros(2, 1, 8, 32, 32, device=device))
    local = release.localizer(torch.zeros(2, 5, 8, 32, 32, device=device), present)
    shape = config.patches.shape_zyx
    patch = torch.zeros(2, release.classifier.channels, *shape, device=device)
    logit, corn = release.classifier(patch, patch, present)
    outputs = [zones, local.lesion, local.zones, local.maps, logit, corn]
    if release.synthesis is not None:
        blank = [torch.zeros(1, n, 4, 16, 16, device=device) for n in (3, 1, 4, 1)]
        outputs.append(release.synthesis.generator(blank[0], blank[1] + 1, blank[2], blank[3]))
    if not all(bool(torch.isfinite(value).all()) for value in outputs):
        raise ReleaseError(
            "the networks of the release give values that are not numbers", REINSTALL
        )
