"""The index by margin carries what inspections are filtered by."""

from collections.abc import Sequence

from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_COLUMNS = [
    *("margin", "id", "status", "verdict", "recipe", "line", "station", "part_id", "model_hash"),
    *("profile", "review_state", "disagreement", "wanted", "score", "captured_at"),
]


def upgrade() -> None:
    op.drop_index("ix_inspections_margin_id", "inspections")
    op.create_index("ix_inspections_margin", "inspections", _COLUMNS)


def downgrade() -> None:
    op.drop_index("ix_inspections_margin", "inspections")
    op.create_index("ix_inspections_margin_id", "inspections", ["margin", "id"])
