"""`make audit`: known vulnerabilities of every pinned package, from PyPI's advisories; needs the internet."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from deploy.supply.closure import EXTRAS, closure, wanted


def pinned() -> list[str]:
    """`name==version` of all that is shipped, as installed here."""
    found = closure([line for extra in (None, *EXTRAS) for line in wanted(extra)])
    return sorted(f"{name}=={package.version.split('+')[0]}" for name, (package, _) in found.items())


def ask(lines: list[str], service: str) -> list[dict[str, Any]] | str:
    """pip-audit's answer for each package, or the last line of why there is none."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "requirements.txt")
        path.write_text("\n".join(lines))
        command = [sys.executable, "-m", "pip_audit", "-r", str(path), "--disable-pip", "--no-deps"]
        command += ["-s", service, "-f", "json", "--progress-spinner", "off", "--timeout", "15"]
        done = subprocess.run(command, capture_output=True, text=True)
    try:
        answers: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        return (done.stderr.strip().splitlines() or ["no answer"])[-1]
    return answers


def verdict(answers: list[dict[str, Any]] | str) -> tuple[int, list[str]]:
    """Exit status and what to print: 0 nothing known, 1 something known, 75 not (wholly) asked."""
    if isinstance(answers, str):
        return 75, [f"SKIPPED: no advisories can be reached: {answers}"]
    known = [
        f"{one['name']} {one['version']}: {flaw['id']} (repaired in {flaw['fix_versions'] or 'no version'})"
        for one in answers
        for flaw in one.get("vulns", ())
    ]
    unasked = [one["name"] for one in answers if "skip_reason" in one]
    said = [*known]
    if unasked:
        said.append(
            f"SKIPPED: {len(unasked)} of {len(answers)} packages are unknown where advisories are asked for"
        )
    said.append(f"{len(answers) - len(unasked)} packages asked for, {len(known)} known vulnerabilities")
    return (1 if known else 75 if unasked else 0), said


def main() -> int:
    status, said = verdict(ask(pinned(), "pypi"))
    print("\n".join(said))
    return status


if __name__ == "__main__":
    sys.exit(main())
