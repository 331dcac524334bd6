"""Runs that go on only as what they were begun."""

from pathlib import Path


def same_run(out: Path, file: str, text: str) -> bool:
    """Whether the run in `out` is, by what its `file` says, that of `text`; one that begins here notes it.

    FileExistsError when `out` is a file.
    """
    path = out / file
    if path.exists():
        return path.read_text(encoding="utf-8") == text
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"--out {out} is a file; name a folder")
    out.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return True
