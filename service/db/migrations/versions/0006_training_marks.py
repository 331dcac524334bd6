"""Marks on training images, and the history of models from both sides."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "training_marks",
        sa.Column("model_hash", sa.String(length=64), nullable=False),
        sa.Column("rank", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("image", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=True),
        sa.Column("score", sa.Double(), nullable=False),
        sa.Column("mark", sa.String(length=64), nullable=False),
        sa.Column("who", sa.String(length=128), nullable=False),
        sa.Column("marked_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("mark IN ('defective', 'fine')", name=op.f("ck_training_marks_mark")),
        sa.ForeignKeyConstraint(["model_hash"], ["models.hash"], name=op.f("fk_training_marks_model_hash")),
        sa.PrimaryKeyConstraint("model_hash", "rank", name=op.f("pk_training_marks")),
    )
    op.create_index("ix_model_events_previous_hash", "model_events", ["previous_hash"])


def downgrade() -> None:
    op.drop_index("ix_model_events_previous_hash", "model_events")
    op.drop_table("training_marks")
