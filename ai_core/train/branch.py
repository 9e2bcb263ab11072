"""Adds the synthesis branch to a release that is otherwise left as it is."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ai_core.config import CoreConfig
from ai_core.errors import InputError
from ai_core.manifest import CARD, ORIGIN, SYNTHESIS, verify_files
from ai_core.nets.synthesis import Generator
from ai_core.origin import Origin
from ai_core.release import branch_files, choose_device, load_release, write_files
from ai_core.synthesis.branch import Branch
from ai_core.train.source import Cases
from ai_core.train.synthesis import fit_normal_spread

CARD_PART = """
## Abnormality by synthesis
A generator was trained to fill deleted parts of normal prostates (adversarial and reconstruction
loss; T2W, ADC and high b jointly), and the spread of its error was measured on {cases} normal cases
that it never saw. What differs from the synthesised image is shown as a map. It was added to the
release afterwards: the likelihood of a finding does not depend on it.
"""
CONFIG = "config.json"


def branch_alone(config: CoreConfig) -> bool:
    """Whether a training adds the branch and trains nothing else."""
    training = config.training
    others = (training.gland, training.localize, training.classify, training.joint)
    return training.synthesis.steps > 0 and not any(phase.steps for phase in others)


def fitted_branch(
    weights: dict[str, dict[str, Tensor]], held_out: Cases, config: CoreConfig, device: str
) -> Branch | None:
    """Return the trained branch with its normal spread; None where the phase was left out.

    Raises:
        InputError: there is no normal held-out case.
    """
    if SYNTHESIS not in weights:
        return None
    generator = Generator(config.nets.synthesis)
    generator.load_state_dict(weights[SYNTHESIS])
    generator.eval().to(choose_device(device))
    torch.manual_seed(config.training.seed)
    return Branch(generator, fit_normal_spread(generator, held_out, config))


def add_branch(folder: Path, start: Path, branch: Branch, config: CoreConfig) -> dict[str, float]:
    """Write the release ``start`` with a branch; every other network and number stays, bit by bit.

    Name, version, rules and plan of the synthesis come from ``config``.

    Raises:
        ReleaseError: ``start`` is not a whole release.
        InputError: the branch was made for another grid or normalisation.
    """
    files = verify_files(start)
    parent = load_release(start, "cpu", synthesis=False).config
    if (parent.lesion_grid, parent.normalise) != (config.lesion_grid, config.normalise):
        raise InputError(
            "the release has another lesion grid or normalisation than the configuration",
            "Take both from the config.json of the release.",
        )
    changed = _with_plan_of(config, parent)
    contents = dict(files.contents) | branch_files(branch)
    contents[CONFIG] = (changed.model_dump_json(indent=1) + "\n").encode()
    contents[CARD] += CARD_PART.format(cases=branch.spread.cases).encode()
    origin = files.origin or Origin(
        parent=None, made_by="ai-core train", seed=config.training.seed, trained_on=0
    )
    origin = origin.model_copy(update={"parent": files.sha256, "made_by": "ai-core train"})
    contents[ORIGIN] = (origin.model_dump_json(indent=1) + "\n").encode()
    write_files(folder, contents, changed)
    return {
        "normal cases": float(branch.spread.cases),
        **{f"spread {name}": value for name, value in branch.spread.joined.items()},
        **{f"believed up to {name}": value for name, value in branch.spread.credible_to.items()},
    }


def _with_plan_of(config: CoreConfig, parent: CoreConfig) -> CoreConfig:
    """Return the parent's configuration with name, version and synthesis of another."""
    training = parent.training.model_copy(
        update={
            name: getattr(config.training, name)
            for name in ("synthesis", "synthesis_cases", "adversarial")
        }
    )
    nets = parent.nets.model_copy(update={"synthesis": config.nets.synthesis})
    return parent.model_copy(
        update={
            "name": config.name,
            "version": config.version,
            "nets": nets,
            "synthesis": config.synthesis,
            "training": training,
        }
    )
