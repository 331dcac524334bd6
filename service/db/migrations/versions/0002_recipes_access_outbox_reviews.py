"""Recipes, masks, reviews, attributes, access, audit log, model events, outbox and leases."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

VERDICTS = (
    "(status = 'done' AND verdict IS NOT NULL AND verdict IN ('PASS', 'REVIEW', 'REJECT'))"
    " OR (status = 'failed' AND verdict IS NOT NULL AND verdict = 'ERROR')"
    " OR (status = 'expired' AND verdict IS NOT NULL AND verdict = 'EXPIRED')"
    " OR (status IN ('queued', 'running') AND verdict IS NULL)"
)
OLD_VERDICTS = VERDICTS.replace("verdict IS NOT NULL AND ", "")


_APPEND_ONLY = {
    "sqlite": [
        f"CREATE TRIGGER audit_log_no_{verb.lower()} BEFORE {verb} ON audit_log "
        "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
        for verb in ("UPDATE", "DELETE")
    ],
    "postgresql": [
        "CREATE FUNCTION audit_log_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'the audit log is append-only'; END $$",
        "CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log "
        "FOR EACH STATEMENT EXECUTE FUNCTION audit_log_append_only()",
    ],
}


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("scope", sa.String(length=64), nullable=False),
        sa.Column("prefix", sa.String(length=16), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("created_by", sa.String(length=128), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("scope IN ('camera', 'operator', 'admin')", name=op.f("ck_api_keys_scope")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("hash", name=op.f("uq_api_keys_hash")),
    )
    with op.batch_alter_table("api_keys", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_api_keys_name"), ["name"], unique=False)

    op.create_table(
        "audit_log",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("who", sa.String(length=128), nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.Column("request_id", sa.String(length=64), nullable=True),
        sa.Column("address", sa.String(length=128), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_log")),
    )
    with op.batch_alter_table("audit_log", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_audit_log_action"), ["action"], unique=False)
        batch_op.create_index(batch_op.f("ix_audit_log_who"), ["who"], unique=False)

    op.create_table(
        "leases",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("holder", sa.String(length=128), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )
    op.create_table(
        "masks",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("recipe", sa.String(length=64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("height_px", sa.Integer(), nullable=False),
        sa.Column("width_px", sa.Integer(), nullable=False),
        sa.Column("share", sa.Double(), nullable=False),
        sa.Column("who", sa.String(length=128), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_masks")),
        sa.UniqueConstraint("recipe", "version", name=op.f("uq_masks_recipe_version")),
    )
    op.create_table(
        "sinks",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("recipe", sa.String(length=64), nullable=True),
        sa.Column("events", sa.JSON(), nullable=False),
        sa.Column("enabled", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.Column("created_by", sa.String(length=128), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("kind IN ('webhook', 'mqtt')", name=op.f("ck_sinks_kind")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sinks")),
        sa.UniqueConstraint("name", name=op.f("uq_sinks_name")),
    )
    op.create_table(
        "users",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("role", sa.String(length=64), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=True),
        sa.Column("disabled", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("failed_sign_ins", sa.Integer(), server_default="0", nullable=False),
        sa.Column("locked_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_sign_in_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("role IN ('camera', 'operator', 'admin')", name=op.f("ck_users_role")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
        sa.UniqueConstraint("name", name=op.f("uq_users_name")),
    )
    op.create_table(
        "model_events",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("recipe", sa.String(length=64), nullable=True),
        sa.Column("model_hash", sa.String(length=64), nullable=False),
        sa.Column("previous_hash", sa.String(length=64), nullable=True),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("who", sa.String(length=128), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["model_hash"], ["models.hash"], name=op.f("fk_model_events_model_hash")),
        sa.ForeignKeyConstraint(
            ["previous_hash"], ["models.hash"], name=op.f("fk_model_events_previous_hash")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_events")),
    )
    with op.batch_alter_table("model_events", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_model_events_model_hash"), ["model_hash"], unique=False)
        batch_op.create_index(batch_op.f("ix_model_events_recipe"), ["recipe"], unique=False)

    op.create_table(
        "outbox",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("sink_id", sa.String(length=36), nullable=False),
        sa.Column("event", sa.String(length=64), nullable=False),
        sa.Column("recipe", sa.String(length=64), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("status", sa.String(length=64), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("status IN ('pending', 'delivered', 'dead')", name=op.f("ck_outbox_status")),
        sa.ForeignKeyConstraint(
            ["sink_id"], ["sinks.id"], name=op.f("fk_outbox_sink_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
    )
    with op.batch_alter_table("outbox", schema=None) as batch_op:
        batch_op.create_index("ix_outbox_sink_id_id", ["sink_id", "id"], unique=False)
        batch_op.create_index("ix_outbox_sink_id_status_id", ["sink_id", "status", "id"], unique=False)

    op.create_table(
        "recipes",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("product", sa.String(length=128), nullable=True),
        sa.Column("description", sa.Text(), server_default="", nullable=False),
        sa.Column("model_hash", sa.String(length=64), nullable=True),
        sa.Column("shadow_hash", sa.String(length=64), nullable=True),
        sa.Column("profile", sa.String(length=64), nullable=True),
        sa.Column("mask_id", sa.String(length=36), nullable=True),
        sa.Column("latency_budget_ms", sa.Integer(), nullable=True),
        sa.Column("retention_days", sa.Integer(), nullable=True),
        sa.Column("audit_rate", sa.Double(), server_default="0.02", nullable=False),
        sa.Column("reasons", sa.JSON(), nullable=False),
        sa.Column("attributes_schema", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("revision", sa.Integer(), server_default="1", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("audit_rate >= 0 AND audit_rate <= 1", name=op.f("ck_recipes_audit_rate")),
        sa.CheckConstraint(
            "latency_budget_ms IS NULL OR latency_budget_ms > 0", name=op.f("ck_recipes_latency_budget_ms")
        ),
        sa.CheckConstraint(
            "retention_days IS NULL OR retention_days > 0", name=op.f("ck_recipes_retention_days")
        ),
        sa.ForeignKeyConstraint(["mask_id"], ["masks.id"], name=op.f("fk_recipes_mask_id")),
        sa.ForeignKeyConstraint(["model_hash"], ["models.hash"], name=op.f("fk_recipes_model_hash")),
        sa.ForeignKeyConstraint(["shadow_hash"], ["models.hash"], name=op.f("fk_recipes_shadow_hash")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_recipes")),
    )
    op.create_table(
        "sessions",
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("user_id", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("address", sa.String(length=128), nullable=True),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_sessions_user_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("hash", name=op.f("pk_sessions")),
    )
    with op.batch_alter_table("sessions", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_sessions_expires_at"), ["expires_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_sessions_user_id"), ["user_id"], unique=False)

    op.create_table(
        "inspection_attributes",
        sa.Column("inspection_id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("value", sa.String(length=256), nullable=False),
        sa.ForeignKeyConstraint(
            ["inspection_id"],
            ["inspections.id"],
            name=op.f("fk_inspection_attributes_inspection_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("inspection_id", "name", name=op.f("pk_inspection_attributes")),
    )
    with op.batch_alter_table("inspection_attributes", schema=None) as batch_op:
        batch_op.create_index(
            "ix_inspection_attributes_found", ["name", "value", "inspection_id"], unique=False
        )

    op.create_table(
        "reviews",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("inspection_id", sa.String(length=36), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("decision", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=True),
        sa.Column("comment", sa.Text(), nullable=True),
        sa.Column("who", sa.String(length=128), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "decision IN ('good', 'defective', 'unsure', 'withdrawn')", name=op.f("ck_reviews_decision")
        ),
        sa.ForeignKeyConstraint(["inspection_id"], ["inspections.id"], name=op.f("fk_reviews_inspection_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reviews")),
        sa.UniqueConstraint("inspection_id", "revision", name=op.f("uq_reviews_inspection_id_revision")),
    )
    with op.batch_alter_table("reviews", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_reviews_created_at"), ["created_at"], unique=False)

    with op.batch_alter_table("inspections", schema=None) as batch_op:
        batch_op.add_column(sa.Column("started_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("deadline_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(
            sa.Column("priority", sa.String(length=16), server_default="camera", nullable=False)
        )
        batch_op.add_column(sa.Column("attempts", sa.Integer(), server_default="0", nullable=False))
        batch_op.add_column(sa.Column("worker", sa.String(length=128), nullable=True))
        batch_op.add_column(sa.Column("margin", sa.Double(), nullable=True))
        batch_op.add_column(sa.Column("wanted", sa.Boolean(), server_default=sa.false(), nullable=False))
        batch_op.add_column(sa.Column("audit", sa.Boolean(), server_default=sa.false(), nullable=False))
        batch_op.add_column(
            sa.Column("review_state", sa.String(length=16), server_default="none", nullable=False)
        )
        batch_op.add_column(sa.Column("review_revision", sa.Integer(), server_default="0", nullable=False))
        batch_op.add_column(
            sa.Column("disagreement", sa.Boolean(), server_default=sa.false(), nullable=False)
        )
        batch_op.add_column(sa.Column("claimed_by", sa.String(length=128), nullable=True))
        batch_op.add_column(sa.Column("claimed_until", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("image_bytes", sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column("brightness", sa.Double(), nullable=True))
        batch_op.add_column(sa.Column("sharpness", sa.Double(), nullable=True))
        batch_op.add_column(sa.Column("mask_id", sa.String(length=36), nullable=True))
        batch_op.create_index("ix_inspections_disagreement_id", ["disagreement", "id"], unique=False)
        batch_op.create_index(batch_op.f("ix_inspections_image_sha256"), ["image_sha256"], unique=False)
        batch_op.create_index("ix_inspections_model_hash_id", ["model_hash", "id"], unique=False)
        batch_op.create_index("ix_inspections_part_id_id", ["part_id", "id"], unique=False)
        batch_op.create_index("ix_inspections_profile_id", ["profile", "id"], unique=False)
        batch_op.create_index(
            "ix_inspections_queue", ["review_state", "wanted", "margin", "id"], unique=False
        )
        batch_op.create_index("ix_inspections_review_state_id", ["review_state", "id"], unique=False)
        for name in ("wanted", "margin", "score", "captured_at"):
            batch_op.create_index(f"ix_inspections_{name}_id", [name, "id"], unique=False)
        for name in ("heatmap_sha256", "reconstruction_sha256"):
            batch_op.create_index(batch_op.f(f"ix_inspections_{name}"), [name], unique=False)
        batch_op.create_foreign_key(batch_op.f("fk_inspections_mask_id"), "masks", ["mask_id"], ["id"])
        batch_op.drop_constraint(batch_op.f("ck_inspections_verdict"), type_="check")
        batch_op.create_check_constraint(batch_op.f("ck_inspections_verdict"), VERDICTS)
        batch_op.create_check_constraint(
            batch_op.f("ck_inspections_priority"), "priority IN ('camera', 'backfill')"
        )
        batch_op.create_check_constraint(
            batch_op.f("ck_inspections_review_state"),
            "review_state IN ('none', 'good', 'defective', 'unsure')",
        )

    with op.batch_alter_table("models", schema=None) as batch_op:
        batch_op.add_column(sa.Column("registered_by", sa.String(length=128), nullable=True))
        batch_op.add_column(
            sa.Column("state", sa.String(length=64), server_default="candidate", nullable=False)
        )
        batch_op.create_check_constraint(
            batch_op.f("ck_models_state"), "state IN ('candidate', 'shadow', 'active', 'retired')"
        )
        batch_op.add_column(sa.Column("manifest", sa.JSON(none_as_null=True), nullable=True))

    for statement in _APPEND_ONLY[op.get_bind().dialect.name]:
        op.execute(statement)


def downgrade() -> None:
    with op.batch_alter_table("models", schema=None) as batch_op:
        batch_op.drop_constraint(batch_op.f("ck_models_state"), type_="check")
        batch_op.drop_column("manifest")
        batch_op.drop_column("state")
        batch_op.drop_column("registered_by")

    with op.batch_alter_table("inspections", schema=None) as batch_op:
        batch_op.drop_constraint(batch_op.f("ck_inspections_verdict"), type_="check")
        batch_op.create_check_constraint(batch_op.f("ck_inspections_verdict"), OLD_VERDICTS)
        batch_op.drop_constraint(batch_op.f("ck_inspections_review_state"), type_="check")
        batch_op.drop_constraint(batch_op.f("ck_inspections_priority"), type_="check")
        batch_op.drop_constraint(batch_op.f("fk_inspections_mask_id"), type_="foreignkey")
        for name in ("heatmap_sha256", "reconstruction_sha256"):
            batch_op.drop_index(batch_op.f(f"ix_inspections_{name}"))
        for name in ("wanted", "margin", "score", "captured_at"):
            batch_op.drop_index(f"ix_inspections_{name}_id")
        batch_op.drop_index("ix_inspections_review_state_id")
        batch_op.drop_index("ix_inspections_queue")
        batch_op.drop_index("ix_inspections_profile_id")
        batch_op.drop_index("ix_inspections_part_id_id")
        batch_op.drop_index("ix_inspections_model_hash_id")
        batch_op.drop_index(batch_op.f("ix_inspections_image_sha256"))
        batch_op.drop_index("ix_inspections_disagreement_id")
        batch_op.drop_column("mask_id")
        batch_op.drop_column("sharpness")
        batch_op.drop_column("brightness")
        batch_op.drop_column("image_bytes")
        batch_op.drop_column("claimed_until")
        batch_op.drop_column("claimed_by")
        batch_op.drop_column("disagreement")
        batch_op.drop_column("review_revision")
        batch_op.drop_column("review_state")
        batch_op.drop_column("audit")
        batch_op.drop_column("wanted")
        batch_op.drop_column("margin")
        batch_op.drop_column("worker")
        batch_op.drop_column("attempts")
        batch_op.drop_column("priority")
        batch_op.drop_column("deadline_at")
        batch_op.drop_column("started_at")

    with op.batch_alter_table("reviews", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_reviews_created_at"))

    op.drop_table("reviews")
    with op.batch_alter_table("inspection_attributes", schema=None) as batch_op:
        batch_op.drop_index("ix_inspection_attributes_found")

    op.drop_table("inspection_attributes")
    with op.batch_alter_table("sessions", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_sessions_user_id"))
        batch_op.drop_index(batch_op.f("ix_sessions_expires_at"))

    op.drop_table("sessions")
    op.drop_table("recipes")
    with op.batch_alter_table("outbox", schema=None) as batch_op:
        batch_op.drop_index("ix_outbox_sink_id_status_id")
        batch_op.drop_index("ix_outbox_sink_id_id")

    op.drop_table("outbox")
    with op.batch_alter_table("model_events", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_model_events_recipe"))
        batch_op.drop_index(batch_op.f("ix_model_events_model_hash"))

    op.drop_table("model_events")
    op.drop_table("users")
    op.drop_table("sinks")
    op.drop_table("masks")
    op.drop_table("leases")
    with op.batch_alter_table("audit_log", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_audit_log_who"))
        batch_op.drop_index(batch_op.f("ix_audit_log_action"))

    op.drop_table("audit_log")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION audit_log_append_only()")
    with op.batch_alter_table("api_keys", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_api_keys_name"))

    op.drop_table("api_keys")
