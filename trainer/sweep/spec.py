"""The spec of a sweep: which trainings, measured how; read from TOML, refused with the reason."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from trainer.errors import TrainerError
from trainer.recipe import Recipe, RecipeError, load_recipe, parse_recipe

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,39}$")]
Seed = Annotated[int, Field(ge=0, lt=2**31, strict=True)]
Share = Annotated[float, Field(ge=0, lt=1)]
Side = Literal["ood", "id"]
MAP_FROM = "paper"
"""Profile whose map settings an extra profile without its own takes over, so that both compare."""


class SweepError(TrainerError, ValueError):
    """The sweep cannot be done as asked; the message says what to change."""


class Spec(BaseModel):
    """A grid of trainings: variants x contamination x seeds, each measured under several profiles.

    `match_images` trains every contamination level on equally many good images: as many as the highest
    level has, which may have fewer because its defective images ran out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: str = "default"
    seeds: tuple[Seed, ...] = Field(default=(0,), min_length=1)
    contamination: tuple[Share, ...] = Field(default=(0.0,), min_length=1)
    evaluate: tuple[Side, ...] = Field(default=("ood",), min_length=1)
    match_images: bool = False
    recipe_profiles: tuple[str, ...] = ("fast",)
    overrides: dict[str, Any] = {}
    variants: dict[Name, dict[str, Any]] = Field(default={"base": {}}, min_length=1)
    profiles: dict[Name, dict[str, Any]] = {}

    @field_validator("overrides", "variants", mode="before")
    @classmethod
    def _dotted(cls, value: Any, info: Any) -> Any:
        """`training.penalty = ...` without quotes is a nested table in TOML; it means the same here."""
        if not isinstance(value, dict):
            return value
        if info.field_name == "overrides":
            return _flatten(value)
        return {name: _flatten(table) if isinstance(table, dict) else table for name, table in value.items()}

    @model_validator(mode="after")
    def _usable(self) -> Self:
        for field in ("seeds", "contamination", "evaluate", "recipe_profiles"):
            values = getattr(self, field)
            if len(set(values)) < len(values):
                raise ValueError(f"{field} {list(values)} names something twice")
        for where, table in (("overrides", self.overrides), *self.variants.items()):
            for key in table:
                if key.split(".")[0] == "profiles":
                    raise ValueError(f"{where}: {key} belongs into a table [profiles.NAME]")
                if key == "training.seed":
                    raise ValueError(f"{where}: training.seed is set by seeds")
        if not self.recipe_profiles and not self.profiles:
            raise ValueError("nothing would be measured: name recipe_profiles or add [profiles.NAME]")
        return self


@dataclass(frozen=True)
class Variant:
    """A recipe of the sweep, complete but for the seed."""

    name: str
    recipe: Recipe

    def with_seed(self, seed: int) -> Recipe:
        values = self.recipe.model_dump(mode="json")
        values["training"]["seed"] = seed
        return parse_recipe(values)


def available_sweeps() -> list[str]:
    folder = resources.files("trainer") / "sweeps"
    return sorted(
        entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml")
    )


def load_spec(
    name_or_file: str, recipe: str | None = None, settings: Mapping[str, Any] | None = None
) -> Spec:
    """Read a spec from a TOML file, or a shipped one by name.

    `recipe` and the dotted `settings` win over the spec's own. Raises SweepError with the reason.
    """
    path = Path(name_or_file)
    if path.suffix != ".toml" and name_or_file in available_sweeps():
        text = (resources.files("trainer") / "sweeps" / f"{name_or_file}.toml").read_text(encoding="utf-8")
    else:
        text = _read(path)
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SweepError(f"sweep {name_or_file} is not valid TOML: {error}") from None
    beside = path.parent / str(values.get("recipe", ""))
    if recipe is not None:
        values["recipe"] = recipe
    elif beside.suffix == ".toml" and beside.is_file():
        values["recipe"] = str(beside)
    if settings:
        shared = values.get("overrides", {})
        values["overrides"] = (_flatten(shared) if isinstance(shared, dict) else {}) | dict(settings)
    return parse_spec(values)


def parse_spec(values: Mapping[str, Any]) -> Spec:
    try:
        return Spec.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(_problem(entry["loc"], entry["msg"]) for entry in error.errors())
        raise SweepError(f"the sweep cannot be used: {problems}") from None


def resolve_variants(spec: Spec) -> list[Variant]:
    """Every variant's recipe with the extra profiles in it, so that the bundle carries and calibrates them.

    Raises SweepError naming the variant, before anything is trained.
    """
    variants = []
    for name, changes in spec.variants.items():
        try:
            plain = load_recipe(spec.recipe, {**spec.overrides, **changes})
            recipe = _with_profiles(plain, spec.profiles)
        except RecipeError as error:
            raise SweepError(f"variant {name}: {error}") from None
        if recipe.data.parts != "one":
            raise SweepError(f"variant {name}: a sweep is for one kind of part; leave data.parts out")
        unknown = sorted(set(spec.recipe_profiles) - set(plain.profiles))
        if unknown:
            raise SweepError(
                f"recipe_profiles {unknown} are not in the recipe; it has {', '.join(plain.profiles)}"
            )
        variants.append(Variant(name, recipe))
    return variants


def measured_profiles(spec: Spec) -> list[str]:
    return [*spec.recipe_profiles, *spec.profiles]


def _with_profiles(recipe: Recipe, extra: Mapping[str, Mapping[str, Any]]) -> Recipe:
    values = recipe.model_dump(mode="json")
    taken = sorted(set(values["profiles"]) & set(extra))
    if taken:
        raise RecipeError(f"the recipe already has profiles {taken}; give the extra ones other names")
    for name, profile in extra.items():
        values["profiles"][name] = {"map": values["profiles"][MAP_FROM]["map"], **profile}
    return parse_recipe(values)


def _flatten(table: Mapping[str, Any]) -> dict[str, Any]:
    """Sections given as tables become dotted keys, one level deep: below are whole values, such as slots."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        inside = isinstance(value, dict) and "." not in key
        flat |= {f"{key}.{inner}": kept for inner, kept in value.items()} if inside else {key: value}
    return flat


def _read(path: Path) -> str:
    if not path.is_file():
        known = ", ".join(available_sweeps())
        raise SweepError(f"there is no sweep {path}; choose one of {known}, or name a .toml file")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise SweepError(f"sweep {path} is not UTF-8 text") from None


def _problem(location: tuple[int | str, ...], message: str) -> str:
    where = ".".join(str(part) for part in location if part != "[key]")
    if location[:1] == ("contamination",):
        message += " (a share: 0.2 for 20 %)"
    message = re.sub(r"^Value error, ", "", message)
    return f"{where}: {message}" if where else message
