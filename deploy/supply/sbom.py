"""`make sbom`: the parts of an installation as a CycloneDX 1.6 document, build/sbom-PART.json."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.supply.closure import EXTRAS, ROOT, closure, project, wanted
from deploy.supply.licenses import licence

PARTS: dict[str, Sequence[str | None]] = {
    "service": (None,),
    "trainer": (None, "trainer"),
    "all": (None, *EXTRAS),
}


def bom(extras: Sequence[str | None]) -> Bom:
    """Inlier with the extras: each package with version, licence, address (purl) and what it needs."""
    table, licences = project(), LicenseFactory()
    version = str(table["version"])
    root = Component(
        name="inlier",
        version=version,
        type=ComponentType.APPLICATION,
        bom_ref="inlier",
        licenses=[licences.make_with_expression("Apache-2.0")],
        purl=PackageURL("pypi", None, "inlier", version),
    )
    requirements = [line for extra in extras for line in wanted(extra)]
    found = closure(requirements)
    parts = {
        name: Component(
            name=name,
            version=package.version,
            type=ComponentType.LIBRARY,
            bom_ref=f"{name}=={package.version}",
            licenses=[licences.make_with_expression(licence(package))],
            purl=PackageURL("pypi", None, name, package.version),
        )
        for name, (package, _) in found.items()
    }
    made = Bom(components=parts.values())
    made.metadata.component = root
    made.register_dependency(root, [parts[name] for name in closure_roots(requirements)])
    for name, (_, below) in found.items():
        made.register_dependency(parts[name], [parts[each] for each in sorted(below)])
    return made


def closure_roots(requirements: Sequence[str]) -> list[str]:
    """Canonical names of what is asked for itself."""
    return sorted({canonicalize_name(Requirement(line).name) for line in requirements})


def write(folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for part, extras in PARTS.items():
        path = folder / f"sbom-{part}.json"
        text = make_outputter(bom(extras), OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=2)
        path.write_text(text + "\n")
        written.append(path)
    return written


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=ROOT / "build")
    for path in write(parser.parse_args().out):
        print(f"wrote {path}")
