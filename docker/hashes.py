"""Writes docker/hashes-service.txt: every package of the service image with the hashes of its wheels.

    python docker/hashes.py        where pip reaches the index that the image will be built from

`docker build` installs by hash where that file is present. It is for Linux on x86-64 and, where the index has
those wheels, on arm64.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

DOCKER = Path(__file__).parent
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_28_aarch64")


def resolve(requirements: str, platform: str) -> list[dict[str, Any]]:
    """What pip would install, as its report says; CalledProcessError if the index lacks something."""
    with tempfile.TemporaryDirectory() as folder:
        wanted, report = Path(folder, "requirements.txt"), Path(folder, "report.json")
        wanted.write_text(requirements)
        older = [name.replace("2_28", step) for step in ("2_17", "2_26", "2_27") for name in (platform,)]
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
        command += [
            "--only-binary",
            ":all:",
            "--python-version",
            "3.11",
            "--implementation",
            "cp",
            "--abi",
            "cp311",
        ]
        command += ["--abi", "abi3", "--abi", "none", "--target", folder, "--report", str(report)]
        for name in (platform, *older, platform.replace("manylinux_2_28", "manylinux2014")):
            command += ["--platform", name]
        command += ["-c", str(DOCKER.parent / "constraints.txt"), "-r", str(wanted)]
        subprocess.run(command, check=True)
        installed: list[dict[str, Any]] = json.loads(report.read_text())["install"]
    return installed


def lines(resolved: list[list[dict[str, Any]]]) -> list[str]:
    """`name==version --hash=...` for pip, of all platforms together."""
    found: dict[str, set[str]] = {}
    for item in (item for platform in resolved for item in platform):
        pin = f"{item['metadata']['name'].lower().replace('_', '-')}=={item['metadata']['version']}"
        found.setdefault(pin, set()).add(item["download_info"]["archive_info"]["hashes"]["sha256"])
    return [
        " \\\n    ".join([pin, *(f"--hash=sha256:{digest}" for digest in sorted(found[pin]))])
        for pin in sorted(found)
    ]


def main() -> None:
    command = [sys.executable, "docker/requirements.py"]
    wanted = subprocess.run(command, cwd=DOCKER.parent, check=True, capture_output=True, text=True).stdout
    resolved = [resolve(wanted, PLATFORMS[0])]
    try:
        resolved.append(resolve(wanted, PLATFORMS[1]))
    except subprocess.CalledProcessError:
        print("no complete set of wheels for arm64 here: hashes are for x86-64 only", file=sys.stderr)
    path = DOCKER / "hashes-service.txt"
    path.write_text(
        "# Made by docker/hashes.py; docker build installs by these.\n" + "\n".join(lines(resolved)) + "\n"
    )
    print(f"wrote {path}: {len(lines(resolved))} packages")


if __name__ == "__main__":
    main()
