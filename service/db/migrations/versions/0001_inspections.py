"""Inspections, the models that ran them, and the thresholds that judged them."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

FILTERS = ("status", "verdict", "recipe", "line", "station", "lot", "serial")


def upgrade() -> None:
    op.create_table(
        "models",
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("registered_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("hash", name=op.f("pk_models")),
    )
    op.create_table(
        "thresholds",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("recipe", sa.String(length=64), nullable=False),
        sa.Column("model_hash", sa.String(length=64), nullable=False),
        sa.Column("profile", sa.String(length=64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("review", sa.Double(), nullable=False),
        sa.Column("reject", sa.Double(), nullable=False),
        sa.Column("who", sa.String(length=128), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.CheckConstraint("review <= reject", name=op.f("ck_thresholds_ordered")),
        sa.ForeignKeyConstraint(["model_hash"], ["models.hash"], name=op.f("fk_thresholds_model_hash")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_thresholds")),
        sa.UniqueConstraint(
            "recipe",
            "model_hash",
            "profile",
            "version",
            name=op.f("uq_thresholds_recipe_model_hash_profile_version"),
        ),
    )
    op.create_table(
        "inspections",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("verdict", sa.String(length=16), nullable=True),
        sa.Column("score_raw", sa.Double(), nullable=True),
        sa.Column("score", sa.Double(), nullable=True),
        sa.Column("threshold_id", sa.String(length=36), nullable=True),
        sa.Column("review", sa.Double(), nullable=True),
        sa.Column("reject", sa.Double(), nullable=True),
        sa.Column("recipe", sa.String(length=64), nullable=False),
        sa.Column("part_id", sa.String(length=128), nullable=True),
        sa.Column("serial", sa.String(length=128), nullable=True),
        sa.Column("lot", sa.String(length=128), nullable=True),
        sa.Column("line", sa.String(length=128), nullable=True),
        sa.Column("station", sa.String(length=128), nullable=True),
        sa.Column("captured_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attributes", sa.JSON(), nullable=False),
        sa.Column("profile", sa.String(length=64), nullable=False),
        sa.Column("model_hash", sa.String(length=64), nullable=False),
        sa.Column("model_name", sa.String(length=64), nullable=False),
        sa.Column("model_version", sa.String(length=64), nullable=False),
        sa.Column("latency_ms", sa.JSON(), nullable=False),
        sa.Column("regions", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("image_sha256", sa.String(length=64), nullable=False),
        sa.Column("image_media_type", sa.String(length=32), nullable=False),
        sa.Column("image_height_px", sa.Integer(), nullable=False),
        sa.Column("image_width_px", sa.Integer(), nullable=False),
        sa.Column("heatmap_sha256", sa.String(length=64), nullable=True),
        sa.Column("heatmap_media_type", sa.String(length=32), nullable=True),
        sa.Column("heatmap_scale", sa.Double(), nullable=True),
        sa.Column("heatmap_max", sa.Double(), nullable=True),
        sa.Column("reconstruction_sha256", sa.String(length=64), nullable=True),
        sa.Column("reconstruction_media_type", sa.String(length=32), nullable=True),
        sa.Column("error_code", sa.String(length=64), nullable=True),
        sa.Column("error_detail", sa.Text(), nullable=True),
        sa.Column("idempotency_key", sa.String(length=255), nullable=True),
        sa.Column("request_digest", sa.String(length=64), nullable=False),
        sa.CheckConstraint(
            "(status = 'done' AND verdict IN ('PASS', 'REVIEW', 'REJECT'))"
            " OR (status = 'failed' AND verdict = 'ERROR') OR (status = 'expired' AND verdict = 'EXPIRED')"
            " OR (status IN ('queued', 'running') AND verdict IS NULL)",
            name=op.f("ck_inspections_verdict"),
        ),
        sa.CheckConstraint(
            "status IN ('queued', 'running', 'done', 'failed', 'expired')", name=op.f("ck_inspections_status")
        ),
        sa.ForeignKeyConstraint(["model_hash"], ["models.hash"], name=op.f("fk_inspections_model_hash")),
        sa.ForeignKeyConstraint(
            ["threshold_id"], ["thresholds.id"], name=op.f("fk_inspections_threshold_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_inspections")),
        sa.UniqueConstraint("idempotency_key", name=op.f("uq_inspections_idempotency_key")),
    )
    for name in FILTERS:
        op.create_index(f"ix_inspections_{name}_id", "inspections", [name, "id"])


def downgrade() -> None:
    op.drop_table("inspections")
    op.drop_table("thresholds")
    op.drop_table("models")
