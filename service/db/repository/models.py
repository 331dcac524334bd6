"""Bundles that are known here."""

from datetime import UTC, datetime

from sqlalchemy.orm import Session

from models.bundle import Manifest
from service.db.tables import ModelRow


def register(session: Session, manifest: Manifest, model_hash: str, path: str) -> None:
    """Remember a bundle by its hash; its path may have changed since."""
    row = session.get(ModelRow, model_hash)
    if row is None:
        row = ModelRow(hash=model_hash, name=manifest.name, version=manifest.version)
        row.registered_at = datetime.now(UTC)
        session.add(row)
    row.path = path
    session.flush()
