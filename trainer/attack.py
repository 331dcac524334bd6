"""Measure how far a white-box attack on the reverse chain moves a bundle's reconstructions."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table

from models.attack import (
    PERTURBATIONS,
    as_denoiser,
    attacked_chain,
    attacked_steps,
    eps_predictor,
    random_signs,
)
from models.bundle import Bundle
from models.preprocess import shrink
from models.profiles import ChainProfile
from trainer.console import Stages, quiet
from trainer.errors import TrainerError
from trainer.parts import require_profile
from trainer.probe import Probe, describe_run

Float = NDArray[np.float32]


class AttackError(TrainerError):
    """The attack cannot be made as asked; the message says what to change."""


@dataclass(frozen=True)
class AttackSettings:
    """What to attack and how strongly; `profile` None: `paper`, or the first chain that there is."""

    profile: str | None = None
    shares: tuple[float, ...] = (0.25, 0.5, 0.75)
    strength: float = 1.0
    batch_size: int = 8
    device: Literal["cpu", "gpu"] = "cpu"


@dataclass(frozen=True)
class AttackRow:
    """One share of attacked steps under one perturbation, as means over the images.

    Both figures are root mean squares over an image's pixels in [-1, 1]: `error` from the image to its
    reconstruction, `change` from the reconstruction of the chain left alone.
    """

    perturbation: str
    share: float
    attacked_steps: int
    error: float
    change: float


@dataclass(frozen=True)
class AttackResult:
    protocol: dict[str, Any]
    rows: list[AttackRow]

    def dicts(self) -> list[dict[str, Any]]:
        return [asdict(row) for row in self.rows]


def attack(bundle: Bundle, probe: Probe, settings: AttackSettings, stages: Stages = quiet) -> AttackResult:
    """Reconstruct the images unharmed, under random moves and under the attack.

    Raises AttackError when the bundle has no such chain profile, PartError when a bundle of several parts is
    attacked without naming one.
    """
    require_profile(bundle.manifest, [settings.profile])
    name, profile = chain_profile(bundle, settings.profile)
    cases = [("none", 0.0)] + [(kind, share) for share in settings.shares for kind in PERTURBATIONS]
    predict = eps_predictor(bundle, settings.device, bundle.manifest.label(name))
    process = bundle.manifest.diffusion
    net = as_denoiser(predict)
    errors: dict[tuple[str, float], list[float]] = {case: [] for case in cases}
    changes: dict[tuple[str, float], list[float]] = {case: [] for case in cases}
    with stages(f"attack on {name}", len(probe.files)) as advance:
        for full, seeds in probe.batches(settings.batch_size):
            untouched = images = shrink(full, bundle.manifest.network.reduce)
            for kind, share in cases:
                make = PERTURBATIONS.get(kind, random_signs)  # "none" has no step to make
                perturb = make(predict, process, seeds, settings.strength)
                found = attacked_chain(net, process, profile, images, seeds, share, perturb)
                untouched = found if kind == "none" else untouched
                errors[kind, share] += rms(found - images)
                changes[kind, share] += rms(found - untouched)
            advance(len(errors["none", 0.0]), "")
    rows = [
        AttackRow(
            perturbation=kind,
            share=share,
            attacked_steps=sum(attacked_steps(profile.n_steps, share)),
            error=float(np.mean(errors[kind, share])),
            change=float(np.mean(changes[kind, share])),
        )
        for kind, share in cases
    ]
    return AttackResult(_protocol(bundle, probe, settings, name, profile), rows)


def chain_profile(bundle: Bundle, asked: str | None) -> tuple[str, ChainProfile]:
    """The profile to attack; AttackError lists the bundle's chains when it is not one of them."""
    chains = {k: p for k, p in bundle.manifest.profiles.items() if isinstance(p, ChainProfile)}
    name = asked or ("paper" if "paper" in chains else next(iter(chains), ""))
    if name not in chains:
        known = ", ".join(chains) or "it has none"
        raise AttackError(f"the bundle has no chain profile {name!r}; choose one of its chains: {known}")
    return name, chains[name]


def rms(difference: Float) -> list[float]:
    """`[B, C, H, W]` -> root mean square of each image."""
    return [float(value) for value in np.sqrt(np.square(difference).mean(axis=(1, 2, 3)))]


def _protocol(
    bundle: Bundle, probe: Probe, settings: AttackSettings, name: str, profile: ChainProfile
) -> dict[str, Any]:
    return {
        **describe_run(bundle, settings.device),
        "data": probe.describe(),
        "profile": name,
        "spec": profile.model_dump(mode="json"),
        "strength": settings.strength,
        "rules": {
            "attack": "one signed gradient step against the posterior mean, from a random start",
            "size": "strength times the deviation of the forward noise between the step's two timesteps",
            "random": "the same size with random signs",
            "steps": "the given share of the chain's steps, spread evenly",
            "error, change": "root mean square on pixels in [-1, 1], mean over images",
            "seed": "the first 8 bytes of the sha256 of the image file",
        },
    }


def print_attack(result: AttackResult, console: Console) -> None:
    """A line per share and perturbation."""
    protocol = result.protocol
    table = Table(title=f"attack on profile {protocol['profile']}", box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("perturbation")
    for head in ("steps attacked", "error", "change"):
        table.add_column(head, justify="right", no_wrap=True)
    for row in result.rows:
        table.add_row(
            row.perturbation,
            f"{row.attacked_steps} ({row.share:.0%})",
            f"{row.error:.4f}",
            f"{row.change:.4f}",
        )
    console.print(table)
    data = protocol["data"]
    console.print(f"  {data['images']} images of {data['folder']}; root mean square on pixels in [-1, 1]")
    _print_skipped(data["skipped"], console)


def _print_skipped(skipped: Sequence[Sequence[str]], console: Console) -> None:
    if skipped:
        console.print(f"  {len(skipped)} unreadable, left out: {', '.join(name for name, _ in skipped[:5])}")
