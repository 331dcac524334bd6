"""`inlier-service models`: on the database; services that run follow within seconds."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
from sqlalchemy.orm import Session

from service.access.cli import DATABASE, database_options, me, on_database
from service.commands import guarded, options, settings_from
from service.db.repository import model_life
from service.db.repository import models as rows
from service.db.tables import ModelRow
from service.errors import StartupError

_PREFIX = re.compile(r"[0-9a-f]{6,64}")
_bundle_options = options(*DATABASE, "trusted_keys")
_why = click.option("--why", required=True, help="kept in the history")


@click.group("models")
def models() -> None:
    """Bundles: which are known, which inspects what, and going back."""


@models.command("list")
@database_options
def list_models(**flags: Any) -> None:
    """Hash, name, version, state, and the recipes that each inspects; the last registered first."""

    def run(session: Session) -> Iterable[str]:
        uses = model_life.uses(session)
        found = model_life.listed(session, name=None, state=None, limit=1000)
        return [
            "  ".join((row.hash[:12], f"{row.name} {row.version}", row.state, *uses.get(row.hash, [])))
            for row in found
        ]

    on_database(flags, run)


@models.command("register")
@click.argument("path", type=click.Path(path_type=Path))
@_bundle_options
def register_model(path: Path, **flags: Any) -> None:
    """Verify the bundle in folder PATH and remember it; prints its hash, alone on the last line."""

    def run(session: Session) -> Iterable[str]:
        from service import model_life as life  # late: OpenCV's limit is in the environment now
        from service.bundles import examine

        bundle = examine(path, settings_from(flags).trusted_keys)
        life.register(session, me(), bundle)
        return [f"{bundle.manifest.name} {bundle.manifest.version} is registered", bundle.hash]

    on_database(flags, run)


@models.command("sign")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--key", required=True, type=click.Path(path_type=Path), help="Ed25519 private key, PEM")
def sign_model(path: Path, key: Path) -> None:
    """Verify the bundle in folder PATH and sign it; services with --trusted-keys ask for that."""

    def run() -> None:
        from service.signatures import sign

        bundle = sign(path, key)
        click.echo(f"{bundle.manifest.name} {bundle.manifest.version} is signed ({bundle.hash})")

    guarded(run)


@models.command("activate")
@click.argument("hash_", metavar="HASH")
@click.option("--recipe", default="default", show_default=True, help="which recipe it is to inspect")
@_why
@_bundle_options
def activate_model(hash_: str, recipe: str, why: str, **flags: Any) -> None:
    """Let a registered bundle inspect a recipe; the beginning of its HASH is enough.

    A running service loads it first; if that fails, what served before goes on, and the log says why.
    """

    def run(session: Session) -> Iterable[str]:
        return _activate(flags, session, recipe, _find(session, hash_), why, rows.ACTIVATED)

    on_database(flags, run)


@models.command("rollback")
@click.argument("recipe")
@_why
@_bundle_options
def rollback_model(recipe: str, why: str, **flags: Any) -> None:
    """Let the model that inspected RECIPE before do it again."""

    def run(session: Session) -> Iterable[str]:
        now = model_life.active(session, recipe)
        earlier = None if now is None else rows.before(session, recipe, now)
        row = None if earlier is None else rows.get(session, earlier)
        if row is None:
            raise StartupError(f"no other model inspected recipe {recipe} before")
        return _activate(flags, session, recipe, row, why, rows.ROLLED_BACK)

    on_database(flags, run)


@models.command("shadow")
@click.argument("hash_", metavar="HASH")
@click.option("--recipe", default="default", show_default=True, help="whose images it is to score")
@click.option("--end", is_flag=True, help="end it, and keep its scores")
@_why
@database_options
def shadow_model(hash_: str, recipe: str, end: bool, why: str, **flags: Any) -> None:
    """Let a registered bundle score a recipe's live images beside the one that inspects them."""

    def run(session: Session) -> Iterable[str]:
        from service import model_life as life

        row, serves = _find(session, hash_), model_life.active(session, recipe)
        life.shadow(session, me(), row.hash, recipe, serves=serves, on=not end, why=why)
        does = "is shadowed no longer" if end else "is shadowed"
        return [f"recipe {recipe} {does} by {row.name} {row.version} ({row.hash})"]

    on_database(flags, run)


def _activate(
    flags: dict[str, Any], session: Session, recipe: str, row: ModelRow, why: str, action: str
) -> Iterable[str]:
    from service import model_life as life
    from service.bundles import examine

    if examine(Path(row.path), settings_from(flags).trusted_keys).hash != row.hash:
        raise StartupError(f"{row.path} holds another bundle than was registered")
    previous = model_life.active(session, recipe) or row.hash
    life.activate(session, me(), recipe, row.hash, previous=previous, why=why, action=action)
    return [f"recipe {recipe} is inspected by {row.name} {row.version} ({row.hash})"]


def _find(session: Session, prefix: str) -> ModelRow:
    found = model_life.by_prefix(session, prefix) if _PREFIX.fullmatch(prefix) else []
    if len(found) != 1:
        what = "more than one model begins" if found else "no model begins"
        raise StartupError(f"{what} with {prefix[:64]!r}; `inlier-service models list` shows them")
    return found[0]
