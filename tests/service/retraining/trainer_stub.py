"""In the place of `inlier-trainer`, so that a run takes no minutes: `trainer_stub.py CONTROL COMMAND ...`.

`retrain` makes a bundle of another version out of the base; the file CONTROL says as JSON what else happens.
"""

import json
import shutil
import sys
import time
from pathlib import Path

control = Path(sys.argv[1])
said = json.loads(control.read_text()) if control.exists() else {}
name, *words = sys.argv[2:]
with control.with_suffix(".calls").open("a") as calls:
    calls.write(json.dumps([name, *words]) + "\n")


def after(option: str) -> Path:
    return Path(words[words.index(option) + 1])


if name == "retrain":
    fit, manifest = after("--out"), Path(words[0]) / "manifest.json"
    assert json.loads(manifest.read_text())["recipe"] == "bolt", "the export is not there"
    fit.mkdir(exist_ok=True)
    for step in range(int(said.get("steps", 1))):
        (fit / "progress").write_text(str(step + 1))
        time.sleep(float(said.get("step_s", 0)))
    if "fail" in said:
        print(said["fail"])
        sys.exit(2)
    shutil.copytree(after("--base"), fit / "bundle")
    path = fit / "bundle" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": said.get("version", "retrained")}))
else:
    assert name == "gate"
    after("--json").write_text("{}")
    print(said.get("gate", "passed"))
    sys.exit(1 if "gate" in said else 0)
