"""What each revision of the tables still serves, for programs that know only older ones."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None
serves: str = "0007"  # older programs do not look for this table; they refuse what they do not know


def upgrade() -> None:
    op.create_table(
        "schema_support",
        sa.Column("revision", sa.String(length=32), nullable=False),
        sa.Column("serves", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("revision", name=op.f("pk_schema_support")),
    )


def downgrade() -> None:
    op.drop_table("schema_support")
