"""Profiles: how a bundle turns an image into anomaly maps, as data that travels in the manifest.

A profile's `kind` names a function in `models.reconstruct`, and its fields, but for `kind`, `map` and `part`,
are that function's keyword arguments. Timesteps are positive: at t = 0 there is no noise and no residual.
"""

import math
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Timestep = Annotated[float, Field(gt=0)]
Noise = Literal["gaussian", "simplex"]
ResidualName = Literal["pixel", "structure"]
"""By name in `models.residuals.RESIDUALS`."""
FeatureSource = Literal["network", "backbone"]
PART_NAME = r"^[a-z0-9][a-z0-9_-]{0,31}$"
PartName = Annotated[str, Field(pattern=PART_NAME)]
"""A kind of part, of several that one bundle serves."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class MapRecipe(_Model):
    """How an image and its reconstruction become an anomaly map and a score (see `models.anomaly`)."""

    # The first three came later: left out where they change nothing, so that earlier runs can be resumed.
    residual: ResidualName = Field(
        default="pixel", exclude_if=lambda name: name == "pixel", description="how they are compared"
    )
    features: Literal["none"] | FeatureSource = Field(
        default="none", exclude_if=lambda name: name == "none", description="compared beside pixels"
    )
    alpha: float = Field(
        default=0.5,
        ge=0,
        le=1,
        exclude_if=lambda share: share == 0.5,
        description="share of the features, where compared",
    )
    sigma_px: float = Field(default=2.0, ge=0, description="Gaussian smoothing in pixels of the map")
    image_median: bool = Field(default=True, description="divide the map by the image's own median")
    top_fraction: float = Field(default=0.003, gt=0, le=1, description="share of pixels in the score")

    def weights(self, levels: int) -> tuple[float, ...]:
        """Share in the map of each of so many residual maps, and of the features' where they are compared.

        (1 - alpha) for pixels and alpha for features, as in DDAD (Mousakhan et al. 2023).
        """
        if self.features == "none":
            return (1 / levels,) * levels
        return (*((1 - self.alpha) / levels,) * levels, self.alpha)


class _Profile(_Model):
    part: PartName | None = Field(
        default=None,
        exclude_if=lambda part: part is None,
        description="the kind of part it is for, in a bundle of several",
    )


class _OneMap(_Profile):
    """A profile whose reconstruction is one image."""

    @property
    def levels(self) -> int:
        """Residual maps per image."""
        return 1

    @property
    def at_once(self) -> int:
        """Network evaluations of one image that can share a call; the next ones need what it answers."""
        return 1


class ChainProfile(_OneMap):
    """Partial-noise reconstruction by a chain of denoising steps (RDDPM, Moradi & Paynabar 2025).

    With `noise = "simplex"`, the noise that the network must then be trained with, it is that of AnoDDPM
    (Wyatt et al. 2022).
    """

    kind: Literal["chain"] = "chain"
    t_noise: Timestep
    t_start: Timestep
    n_steps: int = Field(ge=1, le=10_000)
    sampler: Literal["ddpm", "ddim"] = "ddpm"
    noise: Noise = "gaussian"
    map: MapRecipe = MapRecipe()

    @property
    def network_calls(self) -> int:
        """Network evaluations per image."""
        return self.n_steps

    @property
    def largest_timestep(self) -> float:
        return max(self.t_noise, self.t_start)


class OneStepProfile(_Profile):
    """One-step clean estimates at several noise levels in one batched call."""

    kind: Literal["one_step"] = "one_step"
    timesteps: tuple[Timestep, ...] = Field(min_length=1)
    draws: int = Field(default=1, ge=1, le=64)
    pairs: bool = Field(
        default=False,
        exclude_if=lambda pairs: not pairs,  # came later, as above
        description="every second draw is the one before it, negated",
    )
    noise: Noise = "gaussian"
    map: MapRecipe = MapRecipe()

    @model_validator(mode="after")
    def _paired(self) -> Self:
        if self.pairs and self.draws % 2:
            raise ValueError(f"pairs needs an even number of draws, got {self.draws}")
        return self

    @property
    def network_calls(self) -> int:
        """Network evaluations per image."""
        return self.draws * len(self.timesteps)

    @property
    def at_once(self) -> int:
        """Network evaluations of one image that can share a call."""
        return self.network_calls

    @property
    def largest_timestep(self) -> float:
        return max(self.timesteps)

    @property
    def levels(self) -> int:
        """Residual maps per image."""
        return len(self.timesteps)


class NormGuidedProfile(_OneMap):
    """A one-step estimate guided by a noisier one (DiffusionAD, Zhang et al. 2023)."""

    kind: Literal["norm_guided"] = "norm_guided"
    t_small: Timestep
    t_large: Timestep
    weight: float = Field(default=1.0, ge=0, description="pull toward the noisier estimate; 0 for none")
    draws: int = Field(default=1, ge=1, le=64)
    map: MapRecipe = MapRecipe()

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.t_small >= self.t_large:
            raise ValueError(f"t_small {self.t_small:g} must be below t_large {self.t_large:g}")
        return self

    @property
    def network_calls(self) -> int:
        """Network evaluations per image."""
        return 2 * self.draws

    @property
    def at_once(self) -> int:
        """Network evaluations of one image that can share a call."""
        return self.network_calls

    @property
    def largest_timestep(self) -> float:
        return self.t_large


class InputGuidedProfile(_OneMap):
    """A DDIM chain whose every step is pulled toward the input (DDAD, Mousakhan et al. 2023)."""

    kind: Literal["input_guided"] = "input_guided"
    t_noise: Timestep
    n_steps: int = Field(ge=1, le=10_000)
    weight: float = Field(ge=0, description="pull toward the input; 0 for a plain DDIM chain")
    eta: float = Field(default=0.0, ge=0, le=1, description="noise of the steps; 0 none, 1 as ancestral")
    map: MapRecipe = MapRecipe()

    @property
    def network_calls(self) -> int:
        """Network evaluations per image."""
        return self.n_steps

    @property
    def largest_timestep(self) -> float:
        return self.t_noise


class DenoisedGradientProfile(_OneMap):
    """The input moved down denoised gradients until it is normal (Lu et al. 2023)."""

    kind: Literal["denoised_gradient"] = "denoised_gradient"
    t_noise: Timestep
    n_steps: int = Field(ge=1, le=10_000, description="gradient steps")
    rate: float = Field(default=0.02, gt=0, lt=1, description="step size s; weight decay is sqrt(1 - s^2)")
    denoise_every: int = Field(default=5, ge=1, description="gradient steps between two denoisings")
    map: MapRecipe = MapRecipe()

    @property
    def network_calls(self) -> int:
        """Network evaluations per image."""
        return self.n_steps + math.ceil(self.n_steps / self.denoise_every)

    @property
    def largest_timestep(self) -> float:
        return self.t_noise


Profile = Annotated[
    ChainProfile | OneStepProfile | NormGuidedProfile | InputGuidedProfile | DenoisedGradientProfile,
    Field(discriminator="kind"),
]
