"""The packages that pyproject.toml asks for, one a line: what an image installs before our code is there."""

import argparse
import tomllib


def requirements(extra: str | None, gpu: bool) -> list[str]:
    """Of the service, with an extra's; `gpu` takes ONNX Runtime's other build and the CUDA it needs."""
    with open("pyproject.toml", "rb") as file:
        project = tomllib.load(file)["project"]
    found = [*project["dependencies"], *(project["optional-dependencies"][extra] if extra else ())]
    if gpu:
        (wanted,) = project["optional-dependencies"]["gpu"]
        found = [each for each in found if not each.startswith("onnxruntime")]
        found.append(wanted.replace("onnxruntime-gpu", "onnxruntime-gpu[cuda,cudnn]"))
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--extra")
    parser.add_argument("--gpu", action="store_true")
    print("\n".join(requirements(**vars(parser.parse_args()))))
