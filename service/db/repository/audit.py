"""The audit log: rows are added in the transaction of the change they tell of."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.orm import Session

from service.access.principal import Principal
from service.db.tables import AuditRow
from service.ids import new_id


def record(
    session: Session,
    principal: Principal,
    action: str,
    target: str,
    detail: Mapping[str, Any] | None = None,
    *,
    request_id: str | None = None,
    address: str | None = None,
) -> None:
    """Note that `principal` did `action` ("thresholds.set") to `target` ("recipe/bolt")."""
    session.add(
        AuditRow(
            id=new_id(),
            at=datetime.now(UTC),
            who=principal.name,
            kind=principal.kind,
            action=action,
            target=target,
            detail=dict(detail or {}),
            request_id=request_id,
            address=address,
        )
    )
