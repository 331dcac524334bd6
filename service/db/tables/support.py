"""Which programs a schema serves; read by programs that are older than it."""

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from service.db.tables.base import Base


class SchemaSupportRow(Base):
    """One applied migration, and the oldest program (by its newest revision) that still runs after it."""

    __tablename__ = "schema_support"

    revision: Mapped[str] = mapped_column(String(32), primary_key=True)
    serves: Mapped[str] = mapped_column(String(32))
