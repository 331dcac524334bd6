"""Scores of shadows beside the active model."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "shadow_scores",
        sa.Column("inspection_id", sa.String(length=36), nullable=False),
        sa.Column("model_hash", sa.String(length=64), nullable=False),
        sa.Column("recipe", sa.String(length=64), nullable=False),
        sa.Column("profile", sa.String(length=64), nullable=False),
        sa.Column("score_raw", sa.Double(), nullable=False),
        sa.Column("score", sa.Double(), nullable=False),
        sa.Column("review", sa.Double(), nullable=False),
        sa.Column("reject", sa.Double(), nullable=False),
        sa.Column("verdict", sa.String(length=64), nullable=False),
        sa.Column("latency_ms", sa.Double(), nullable=False),
        sa.Column("active_hash", sa.String(length=64), nullable=False),
        sa.Column("active_score", sa.Double(), nullable=False),
        sa.Column("active_verdict", sa.String(length=64), nullable=False),
        sa.Column("active_latency_ms", sa.Double(), nullable=True),
        sa.Column("disagrees", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("verdict IN ('PASS', 'REVIEW', 'REJECT')", name=op.f("ck_shadow_scores_verdict")),
        sa.CheckConstraint(
            "active_verdict IN ('PASS', 'REVIEW', 'REJECT')", name=op.f("ck_shadow_scores_active_verdict")
        ),
        sa.ForeignKeyConstraint(
            ["inspection_id"],
            ["inspections.id"],
            name=op.f("fk_shadow_scores_inspection_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["model_hash"], ["models.hash"], name=op.f("fk_shadow_scores_model_hash")),
        sa.ForeignKeyConstraint(["active_hash"], ["models.hash"], name=op.f("fk_shadow_scores_active_hash")),
        sa.PrimaryKeyConstraint("inspection_id", "model_hash", name=op.f("pk_shadow_scores")),
    )
    columns = ["recipe", "model_hash", "inspection_id"]
    op.create_index("ix_shadow_scores_newest", "shadow_scores", columns)
    columns.insert(2, "disagrees")
    op.create_index("ix_shadow_scores_disagrees", "shadow_scores", columns)


def downgrade() -> None:
    op.drop_table("shadow_scores")
