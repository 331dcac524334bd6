"""What people said of training images, for the next training."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Text
from sqlalchemy.orm import Mapped, mapped_column

from service.db.tables.base import Base, Hash, Label, Name, UtcDateTime


class TrainingMarkRow(Base):
    """The mark that stands on a training image of a bundle; who changed it before is in the audit log."""

    __tablename__ = "training_marks"
    __table_args__ = (CheckConstraint("mark IN ('defective', 'fine')", name="mark"),)

    model_hash: Mapped[str] = mapped_column(ForeignKey("models.hash"), primary_key=True)
    rank: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # in the bundle's audit.csv
    image: Mapped[str] = mapped_column(Text)  # its name there
    sha256: Mapped[str | None] = mapped_column(Hash)  # of the file; None: the bundle does not know
    score: Mapped[float]
    mark: Mapped[str] = mapped_column(Name)
    who: Mapped[str] = mapped_column(Label)
    marked_at: Mapped[datetime] = mapped_column(UtcDateTime)
