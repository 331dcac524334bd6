"""`make promises`: run the proofs, print the tables, and with --write put them into docs/reliability.md."""

import os
import subprocess
import sys
from datetime import UTC, datetime

import click
import pytest

from tests.promises.plugin import Collector
from tests.promises.source import ROOT, marks, promises
from tests.promises.table import PAGE, read_results, render, replaced, result_of


def commit() -> str:
    """The commit that was tested, marked if files differ from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    page = f":(exclude){PAGE.relative_to(ROOT)}"  # an earlier run's results are no change of what is tested
    changed = "+" if git("status", "--porcelain", "--untracked-files=no", "--", ".", page).strip() else ""
    return git("rev-parse", "--short=7", "HEAD").strip() + changed


@click.command()
@click.option("--only", type=int, multiple=True, help="Only this promise; may be given several times.")
@click.option("--quick", is_flag=True, help="Leave the slow tests out.")
@click.option("--write", is_flag=True, help="Write the results to docs/reliability.md.")
@click.option("--tables", is_flag=True, help="Run nothing; make the tables from what is on the page.")
def main(only: tuple[int, ...], quick: bool, write: bool, tables: bool) -> None:
    page = PAGE.read_text()
    results, marked, status = read_results(page), marks(), 0
    if not tables:
        collector = Collector(only)
        chosen = "promise and not slow" if quick else "promise"
        files = sorted({str(ROOT / mark.file) for mark in marked if not only or mark.number in only})
        if not files:
            raise click.UsageError("no test bears the mark of this promise")
        os.environ.setdefault("INLIER_SOAK_REQUESTS", "20000")
        if not quick:
            os.environ.setdefault("INLIER_LONG", "1")
            os.environ.setdefault("INLIER_FUZZ_SECONDS", "600")
        status = pytest.main(["-p", "no:cacheprovider", "-m", chosen, *files], plugins=[collector])
        date, tested = datetime.now(UTC).date().isoformat(), commit()
        for number, seen in collector.seen.items():
            mine = [mark for mark in marked if mark.number == number]
            results[number] = result_of(seen, mine, date, tested)
    made = render(promises(), marked, results)
    click.echo(made)
    if write:
        PAGE.write_text(replaced(page, made))
    sys.exit(status)


if __name__ == "__main__":
    main()
