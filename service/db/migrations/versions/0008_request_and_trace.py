"""Which request an inspection came with, and the trace it belongs to."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None
serves: str = "0007"  # two columns that may be empty


def upgrade() -> None:
    # Without the batch: both databases add such columns without touching a row.
    for name in ("request_id", "trace_parent"):
        op.add_column("inspections", sa.Column(name, sa.String(length=64), nullable=True))


def downgrade() -> None:
    for name in ("trace_parent", "request_id"):
        op.drop_column("inspections", name)
