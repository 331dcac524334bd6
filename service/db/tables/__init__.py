"""The tables. Valid on SQLite and PostgreSQL; changed only together with a migration."""

from service.db.tables.access import ApiKeyRow, AuditRow, SessionRow, UserRow
from service.db.tables.base import Base, UtcDateTime
from service.db.tables.inspections import FILTERS, AttributeRow, InspectionRow, ReviewRow
from service.db.tables.marks import TrainingMarkRow
from service.db.tables.models import ModelEventRow, ModelRow
from service.db.tables.outbox import LeaseRow, OutboxRow, SinkRow
from service.db.tables.recipes import MaskRow, RecipeRow, ThresholdRow
from service.db.tables.runs import TrainingRunRow
from service.db.tables.shadow import ShadowScoreRow
from service.db.tables.support import SchemaSupportRow

__all__ = [
    "FILTERS",
    "ApiKeyRow",
    "AttributeRow",
    "AuditRow",
    "Base",
    "InspectionRow",
    "LeaseRow",
    "MaskRow",
    "ModelEventRow",
    "ModelRow",
    "OutboxRow",
    "RecipeRow",
    "ReviewRow",
    "SchemaSupportRow",
    "SessionRow",
    "ShadowScoreRow",
    "SinkRow",
    "ThresholdRow",
    "TrainingMarkRow",
    "TrainingRunRow",
    "UserRow",
    "UtcDateTime",
]
