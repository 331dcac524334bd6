"""What is compared: the plain loop, diffusers, feature baselines, and the engine's profiles."""

import importlib.util
import warnings
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from deploy.bench.speed.limit import Precision, need
from deploy.bench.speed.timing import Arm, Rates
from models.bundle import Bundle
from models.engine import BundleEngine, Runtime, open_engine
from models.preprocess import to_float
from models.process import DiffusionProcess, posterior, predict_x0
from models.unet import UNet, UNetConfig
from trainer.baselines.registry import build
from trainer.features import load_features

Float = NDArray[np.float32]
Pixels = NDArray[np.uint8]
RUNTIMES: tuple[Runtime, ...] = ("onnx", "openvino", "torch")
BATCHES = (1, 8)
PAPER_STEPS = 250


def load_net(bundle: Bundle) -> UNet:
    """The bundle's network as the trainer has it."""
    from safetensors.torch import load_file

    known = UNetConfig.__dataclass_fields__
    shape = {key: value for key, value in bundle.manifest.network.model_dump().items() if key in known}
    net = UNet(UNetConfig.from_dict(shape))
    net.load_state_dict(load_file(bundle.file("model.safetensors")))
    return net.eval()


@torch.no_grad()
def plain_loop(net: nn.Module, process: DiffusionProcess, image: Float, steps: int) -> torch.Tensor:
    """Partial-noise reconstruction as everyone writes it: eager, float32, an image at a time."""
    grid = np.linspace(100, 0, steps + 1)
    abar = process.abar(grid)
    x0 = torch.from_numpy(image)[None]
    x = abar[0] ** 0.5 * x0 + (1 - abar[0]) ** 0.5 * torch.randn_like(x0)
    for k in range(steps):
        eps = net(x, torch.tensor([grid[k]], dtype=torch.float32))
        clean = predict_x0(x, eps, abar[k]).clamp(-1, 1)
        x, variance = posterior(x, clean, abar[k], abar[k + 1])
        if k < steps - 1:
            x = x + variance**0.5 * torch.randn_like(x)
    return x


def with_steps(engine: BundleEngine, steps: int) -> BundleEngine:
    """The engine with a `paper` profile of so many steps."""
    manifest = engine.manifest
    paper = manifest.profiles["paper"].model_copy(update={"n_steps": steps})
    engine.manifest = manifest.model_copy(update={"profiles": {**manifest.profiles, "paper": paper}})
    return engine


def diffusion_arms(bundle: Bundle, pixels: Pixels, steps: int, threads: int) -> list[Arm]:
    """The plain loop first, which the others are compared with."""
    net = load_net(bundle)
    images = to_float(pixels)
    one = need(net, torch.from_numpy(images[:1]), torch.ones(1))
    arms = [
        Arm(
            "plain loop, PyTorch",
            partial(plain_loop, net, bundle.manifest.diffusion, images[0], steps),
            1,
            steps,
            True,
            one,
        )
    ]
    arms += diffusers_arms(bundle, steps)
    for runtime in RUNTIMES:
        if runtime == "openvino" and importlib.util.find_spec("openvino") is None:
            continue
        engine = with_steps(open_engine(bundle, runtime, threads=threads), steps)
        precision, name = multiplies_in(runtime), runtime
        if precision == "bf16":
            name = f"{runtime} bf16"
        for profile in ("paper", "fast"):
            calls = engine.manifest.profiles[profile].network_calls
            for batch in BATCHES:
                run = partial(engine.run, images[:batch], range(batch), profile)
                chain = profile == "paper"
                arms.append(Arm(f"`{profile}`, {name}", run, batch, calls, chain, one, precision))
    return arms


def multiplies_in(runtime: Runtime) -> Precision:
    """The precision of the network's multiplications under a runtime, on this CPU."""
    if runtime != "openvino":
        return "fp32"
    from models.engine_openvino import native_precision

    return "bf16" if native_precision() == "bf16" else "fp32"


def diffusers_arms(bundle: Bundle, steps: int) -> list[Arm]:
    """diffusers' own network with as many multiply-adds, and its pipelines."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel
    shape, side_px = bundle.manifest.network, bundle.manifest.preprocess.height
    folded = shape.channels * shape.patch**2
    net = UNet2DModel(
        sample_size=side_px // shape.patch,
        in_channels=folded,
        out_channels=folded,
        layers_per_block=1,
        block_out_channels=(24, 48, 80, 112),
        down_block_types=("DownBlock2D",) * 4,
        up_block_types=("UpBlock2D",) * 4,
        norm_num_groups=8,
    ).eval()
    one = need(net, torch.zeros(1, folded, *[side_px // shape.patch] * 2), 1)
    arms = []
    for pipeline in (DDPMPipeline(net, DDPMScheduler()), DDIMPipeline(net, DDIMScheduler())):
        pipeline.set_progress_bar_config(disable=True)
        run = partial(pipeline, batch_size=1, num_inference_steps=steps, output_type="np")
        arms.append(Arm(f"diffusers {type(pipeline).__name__}", run, 1, steps, True, one))
    return arms


def feature_arms(pixels: Pixels) -> list[Arm]:
    """PatchCore and PaDiM on pretrained EfficientNet-Lite0, fitted to the same images."""
    arms = []
    for name in ("patchcore", "padim"):
        method, _ = build(name, {}, lambda depth: load_features(None, depth))
        method.fit(pixels)
        arms += [Arm(name, partial(method.score, pixels[:batch]), batch) for batch in BATCHES]
    return arms


def table(compared: Sequence[Arm], rates: Rates, steps: int) -> str:
    """Medians and 10th to 90th percentiles of the rounds; chains as if of 250 steps, limits of the precision
    that an arm multiplies in."""
    need = compared[0].need
    assert need is not None
    lines = [
        f"A network call needs {need.gmac:.3f} GMAC and moves {need.mbyte:.1f} MB an image.",
        "",
        "| what | batch | calls | ms an image and call | images/s | x plain loop | share of limit |",
        "|---|---|---|---|---|---|---|",
    ]
    plain = _scaled(compared[0], steps)
    for arm in compared:
        spent, calls = _scaled(arm, steps), PAPER_STEPS if arm.chain else arm.calls
        limit = rates[arm.precision]
        share = "" if arm.need is None else _spread(arm.need.gmac * calls / spent * 1000 / limit, 2)
        each = _spread(spent / calls, 1) if calls else ""
        rate, ratio = _spread(1000 / spent, 3), _spread(plain / spent, 2)
        lines.append(f"| {arm.name} | {arm.images} | {calls or ''} | {each} | {rate} | {ratio} | {share} |")
    return "\n".join(lines)


def _scaled(arm: Arm, steps: int) -> np.ndarray:
    """Milliseconds an image of every round, of a chain with 250 steps."""
    return arm.image_ms * (PAPER_STEPS / steps if arm.chain else 1)


def _spread(values: np.ndarray, digits: int) -> str:
    low, median, high = np.quantile(values, (0.1, 0.5, 0.9))
    return f"{median:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
