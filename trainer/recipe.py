"""The recipe: every choice of a training run in one typed place, read from TOML, overridable by flags."""

import json
import re
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from models.backbone import STRIDE as BACKBONE_STRIDE
from models.bundle import ChainProfile, MapRecipe, OneStepProfile, Process, Profile
from models.detector import STRIDE as DETECTOR_STRIDE
from models.losses import PENALTIES, REDUCTIONS
from models.profiles import FeatureSource
from models.unet import UNetConfig
from trainer.errors import TrainerError

Side = Annotated[int, Field(ge=16, le=2048)]
AUTO_PX = 256
"""The side that stands for `data.size = "auto"` until the images are known (`trainer.adapt`)."""


class RecipeError(TrainerError, ValueError):
    """The recipe cannot be used; the message names the setting and what it may be."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Slot(BaseModel):
    """A choice by name plus its parameters, for example `{ name = "huber", delta = 0.1 }`."""

    model_config = ConfigDict(frozen=True, extra="allow")
    name: str

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        """A bare name stands for the slot with its default parameters."""
        return {"name": value} if isinstance(value, str) else value

    def build(self, kind: str, registry: Mapping[str, Any]) -> Any:
        """Make the callable from its registry; RecipeError for an unknown name or parameter."""
        if self.name not in registry:
            raise RecipeError(f"{kind} {self.name!r} is unknown; choose one of {', '.join(sorted(registry))}")
        try:
            return registry[self.name](**(self.model_extra or {}))
        except (TypeError, ValueError) as error:
            raise RecipeError(f"{kind} {self.name!r}: {error}") from None


class Data(_Section):
    size: Side | tuple[Side, Side] | Literal["auto"] = 128
    channels: Literal["auto", 1, 3] = "auto"
    detail: Literal["ignore", "auto"] = Field(
        default="ignore",
        exclude_if=lambda detail: detail == "ignore",  # as for parts
        description="auto: full size for the diffusion model where parts share details that half size loses",
    )
    parts: Literal["one", "folders"] = Field(
        default="one",
        exclude_if=lambda parts: parts == "one",  # runs from before there was a choice can be resumed
        description="folders: one kind of part per folder of the images, told to the network by a label",
    )

    @property
    def height_width(self) -> tuple[int, int]:
        side = AUTO_PX if self.size == "auto" else self.size
        return side if isinstance(side, tuple) else (side, side)


class Network(_Section):
    widths: tuple[int, ...] = (32, 64, 96, 128)
    blocks: int = 1
    patch: int = 2
    attention: bool = True
    clean_scale: float = Field(default=0.0, ge=0, description="size of corruptions; 0: predict the noise")
    reduce: int = Field(default=1, ge=1, le=8, description="images enter this many times smaller")
    tile_px: int | None = Field(default=None, ge=16, description="seen in tiles of this side, once reduced")
    overlap_px: int = Field(default=0, ge=0, description="of neighbouring tiles")

    def config(self, channels: int, classes: int = 0) -> UNetConfig:
        return UNetConfig(
            channels=channels, classes=classes, **self.model_dump(exclude={"reduce", "tile_px", "overlap_px"})
        )


class Training(_Section):
    penalty: Slot = Slot(name="huber")
    reduction: Slot = Slot(name="mean")
    regularizer: Slot = Slot(name="none")
    noise: Slot = Slot(name="gaussian")
    corruption: Slot = Slot(name="none")
    timesteps: Slot = Slot(name="uniform")
    outer: Slot = Slot(name="none")
    target: Literal["noise", "clean"] = Field(default="noise", description="whose residual the loss is of")
    crop_px: int | None = Field(default=None, ge=16, description="train on random crops of this side")
    steps: int = Field(default=4000, ge=1)
    batch_size: int = Field(default=16, ge=1)
    learning_rate: float = Field(default=3e-4, gt=0)
    final_learning_rate_share: float = Field(default=0.05, ge=0, le=1)
    warmup_steps: int = Field(default=200, ge=0)
    weight_decay: float = Field(default=0.01, ge=0)
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    clip_norm: float = Field(default=1.0, gt=0)
    flips: bool = True
    turns: bool = Field(default=False, description="also turn by 90 degrees: parts in any rotation")
    seed: int = Field(default=0, ge=0, lt=2**31)
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    checkpoint_every: int = Field(default=500, ge=1)


class DetectorRecipe(_Section):
    """The defect detector beside the diffusion model (`models.detector`)."""

    backbone: Literal["auto", "pretrained", "own"] = Field(
        default="auto", description="auto: pretrained where its weights are installed, else own"
    )
    places: Literal["auto", "ignore"] = Field(
        default="auto",
        exclude_if=lambda places: places == "auto",  # as for data.parts
        description="auto: distances place by place where parts are framed alike and share fine structure",
    )
    corruption: Slot = Slot.model_validate({"name": "structured", "probability": 0.7})
    width: int = Field(default=96, ge=8)
    steps: int = Field(default=900, ge=1)
    batch_size: int = Field(default=16, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    crop_px: int | None = Field(default=None, ge=32, description="train on random crops of this side")


class Calibration(_Section):
    max_calls: int = Field(
        default=10_000,
        ge=1,
        description="network evaluations spent per profile; fixes how many images are used",
    )
    min_images: int = Field(default=32, ge=1)
    review_rate: float = Field(default=0.05, gt=0, lt=1, description="share of good parts a person may see")
    reject_rate: float = Field(default=0.002, gt=0, lt=1, description="share of good parts rejected outright")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.reject_rate > self.review_rate:
            raise ValueError("reject_rate must not exceed review_rate")
        return self


def standard_profiles(side_px: int) -> dict[str, Profile]:
    """The profiles every bundle ships: the slides' chain, and two quick ones.

    `paper` is the `substeps` reading of "noise 100, denoise 250" (decision 0002); the recipe of that name
    has the other two readings beside it. Smoothing follows the field's habit of sigma 4 px at 256 px.
    """
    recipe = MapRecipe(sigma_px=side_px / 64)
    return {
        "paper": ChainProfile(t_noise=100, t_start=100, n_steps=250, map=recipe),
        "few": ChainProfile(t_noise=100, t_start=100, n_steps=5, sampler="ddim", map=recipe),
        "fast": OneStepProfile(timesteps=(25, 50, 200), draws=2, pairs=True, map=recipe),
    }


class Recipe(_Section):
    """A resolved recipe; its JSON form is saved with the run and inside the bundle."""

    name: str = Field(default="default", pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    data: Data = Data()
    network: Network = Network()
    process: Process = Process()
    training: Training = Training()
    detector: DetectorRecipe | None = None
    calibration: Calibration = Calibration()
    profiles: dict[str, Profile] = {}

    @model_validator(mode="after")
    def _usable(self) -> Self:
        self.training.penalty.build("penalty", PENALTIES)
        self.training.reduction.build("reduction", REDUCTIONS)
        self._check_sides()
        missing = {"paper", "fast"} - set(self.profiles) if self.profiles else set()
        if missing:
            raise ValueError(f"profiles {sorted(missing)} are missing; every bundle ships paper and fast")
        bound = [name for name, profile in self.profiles.items() if profile.part is not None]
        if bound:
            raise ValueError(f"profiles {bound} name a part; data.parts = folders makes one for every part")
        too_far = [n for n, p in self.profiles.items() if p.largest_timestep > self.process.steps]
        if too_far:
            raise ValueError(f"profiles {too_far} go beyond process.steps = {self.process.steps}")
        return self

    def _check_sides(self) -> None:
        stride = self.network.config(1).stride * self.network.reduce
        crop = self.training.crop_px
        if any(side % stride for side in self.data.height_width):
            raise ValueError(f"data.size {self.data.size} must be divisible by the network's stride {stride}")
        tile, overlap = self.network.tile_px, self.network.overlap_px
        if tile is not None and (tile % (stride // self.network.reduce) or overlap > tile // 2):
            raise ValueError(f"network.tile_px {tile} must be divisible by the stride, overlap at most half")
        if tile is not None and overlap % (stride // self.network.reduce):
            raise ValueError(f"network.overlap_px {overlap} must be divisible by the network's stride")
        if crop is not None and crop % stride:
            raise ValueError(f"training.crop_px {crop} must be divisible by the network's stride {stride}")
        if "network" in self.feature_sources and self.data.parts == "folders":
            raise ValueError('features = "network" in a profile\'s map is for one kind of part')
        if "backbone" in self.feature_sources:
            compared = (*(side // self.network.reduce for side in self.data.height_width), tile or 0)
            if self.detector is None:
                raise ValueError('features = "backbone" in a profile\'s map needs a [detector] section')
            if any(side % BACKBONE_STRIDE for side in compared):
                raise ValueError(
                    'features = "backbone" in a profile\'s map: data.size / network.reduce '
                    f"({compared[0]} px) and network.tile_px must be divisible by {BACKBONE_STRIDE}"
                )
        if self.detector is None:
            return
        sides = (*self.data.height_width, self.detector.crop_px or DETECTOR_STRIDE)
        if any(side % DETECTOR_STRIDE for side in sides):
            raise ValueError(f"data.size and detector.crop_px must be divisible by {DETECTOR_STRIDE}")

    @property
    def feature_sources(self) -> list[FeatureSource]:
        """What the profiles compare beside pixels, in the order of their names."""
        names = {profile.map.features for profile in self.profiles.values()}
        return sorted(name for name in names if name != "none")

    @property
    def largest_timestep(self) -> int:
        """Only timesteps up to the largest one used at inference need training."""
        return int(max(profile.largest_timestep for profile in self.profiles.values()))


def available_recipes() -> list[str]:
    folder = resources.files("trainer") / "recipes"
    return sorted(
        entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml")
    )


def load_recipe(name_or_file: str, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Read a shipped recipe by name or a TOML file by path, then apply dotted overrides.

    `overrides` maps keys such as `training.steps` to values. Raises RecipeError with the reason.
    """
    path = Path(name_or_file)
    if path.suffix == ".toml":
        if not path.is_file():
            raise RecipeError(f"there is no recipe file {path}")
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise RecipeError(f"recipe {path} is not UTF-8 text") from None
        name = re.sub(r"[^a-z0-9._-]", "-", path.stem.lower()).strip("-._") or "recipe"
    elif name_or_file in available_recipes():
        text = (resources.files("trainer") / "recipes" / f"{name_or_file}.toml").read_text(encoding="utf-8")
        name = name_or_file
    else:
        known = ", ".join(available_recipes())
        raise RecipeError(f"recipe {name_or_file!r} is unknown; choose one of {known}, or name a .toml file")
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"recipe {name_or_file} is not valid TOML: {error}") from None
    values.setdefault("name", name)
    for key, value in (overrides or {}).items():
        _set(values, key, value)
    return parse_recipe(values)


def parse_recipe(values: Mapping[str, Any]) -> Recipe:
    """Validate a recipe's values and fill in the standard profiles; RecipeError says what is wrong."""
    try:
        recipe = Recipe.model_validate(values)
        if not recipe.profiles:
            profiles = standard_profiles(max(recipe.data.height_width) // recipe.network.reduce)
            recipe = Recipe.model_validate({**values, "profiles": profiles})
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise RecipeError(f"the recipe cannot be used: {problems}") from None
    return recipe


def parse_override(text: str) -> tuple[str, Any]:
    """`training.steps=200` -> ("training.steps", 200); values are JSON, anything else is a string."""
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise RecipeError(f"override {text!r} must look like section.key=value")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value


def _set(values: dict[str, Any], dotted: str, value: Any) -> None:
    *sections, last = dotted.split(".")
    for section in sections:
        if isinstance(values.get(section), str):
            values[section] = {"name": values[section]}  # a slot given by its name alone
        inner = values.setdefault(section, {})
        if not isinstance(inner, dict):
            raise RecipeError(f"{dotted}: {section} is not a section")
        values = inner
    values[last] = value
