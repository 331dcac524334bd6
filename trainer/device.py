"""Where and in which precision a training run computes."""

from pathlib import Path
from typing import Literal

import torch

from trainer.errors import TrainerError

Device = Literal["cpu", "gpu"]


class DeviceError(TrainerError):
    """The asked-for device is not there."""


def choose_device(asked: Literal["auto", "cpu", "gpu"]) -> Device:
    """`auto` takes the GPU when there is one; DeviceError when `gpu` is asked for in vain."""
    if asked == "auto":
        return "gpu" if torch.cuda.is_available() else "cpu"
    if asked == "gpu" and not torch.cuda.is_available():
        raise DeviceError("no CUDA device is visible to torch; use --device cpu, or check the driver")
    return asked


def choose_precision(asked: Literal["auto", "bf16", "fp32"], device: Device) -> Literal["bf16", "no"]:
    """Accelerate's mixed-precision name: bf16 where the hardware multiplies it natively."""
    if asked != "auto":
        return "bf16" if asked == "bf16" else "no"
    native = torch.cuda.is_bf16_supported() if device == "gpu" else _cpu_multiplies_bf16()
    return "bf16" if native else "no"


def _cpu_multiplies_bf16() -> bool:
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.is_file():
        return False
    flags = next((line for line in cpuinfo.read_text().splitlines() if line.startswith("flags")), "")
    return bool({"avx512_bf16", "amx_bf16"} & set(flags.split()))
