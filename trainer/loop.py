"""The training loop: one robust-denoising step, repeated, checkpointed, resumable to the bit."""

import copy
import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from models.unet import UNet, channels_last
from trainer.batches import BatchMaker, made_ahead
from trainer.checkpoint import (
    CheckpointError,
    Progress,
    find_checkpoint,
    read_progress,
    restore,
    save_checkpoint,
)
from trainer.data import TrainingSet
from trainer.device import Device, choose_precision
from trainer.errors import TrainerError
from trainer.objective import Objective
from trainer.recipe import Recipe, Training
from trainer.team import current

_APART = 0x9E3779B97F4A7C15  # between the seeds of two processes
Report = Callable[[int, int, float], None]
"""Called after each step with (steps done, total steps, smoothed loss)."""


class Guard(Protocol):
    """Looks at every step of the optimiser, and may change it."""

    def before(self) -> None: ...

    def after(self) -> None: ...


Protect = Callable[[UNet], Guard]
"""Makes a guard from the network that a training begins with."""


class TrainingError(TrainerError):
    """Training cannot go on; the message says why and what to try."""


@dataclass(frozen=True)
class Trained:
    """The averaged network, on the CPU, and the run's history."""

    net: UNet
    progress: Progress


def learning_rate(step: int, total: int, training: Training) -> float:
    """Linear warm-up, then a cosine down to `final_learning_rate_share`."""
    warmup = min(training.warmup_steps, total // 5)
    if step < warmup:
        return training.learning_rate * (step + 1) / warmup
    share = training.final_learning_rate_share
    position = (step - warmup) / max(1, total - warmup)
    return training.learning_rate * (share + (1 - share) * 0.5 * (1 + math.cos(math.pi * position)))


def recipe_digest(recipe: Recipe) -> str:
    """Identifies what must not change between a run and its resumption."""
    fixed = recipe.model_dump(
        mode="json",
        include={"data": True, "network": True, "process": True, "training": True},
        exclude={"training": {"checkpoint_every"}, "network": {"tile_px", "overlap_px"}},
    )
    text = json.dumps([fixed, recipe.largest_timestep], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@torch.no_grad()
def update_ema(ema: UNet, net: UNet, step: int, decay: float) -> None:
    """Exponential moving average with the usual warm-up, so that short runs are not held back."""
    decay = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(ema.parameters()), list(net.parameters()), 1.0 - decay)


def train(
    recipe: Recipe,
    data: TrainingSet,
    checkpoint: Path,
    device: Device,
    *,
    resume: bool = False,
    max_minutes: float | None = None,
    until: float = 1.0,
    initial: Path | None = None,
    protect: Protect | None = None,
    report: Report = lambda done, total, loss: None,
) -> Trained:
    """Fit the network of `recipe` on `data`; checkpoints go to the folder `checkpoint`.

    `max_minutes` shortens the schedule to what fits, measured on the first steps, and is a hard stop.
    A resumed run continues the same schedule with the same batches and noise; `until` stops it after that
    share of the schedule, to be resumed. It begins with the weights in `initial` if there are any; what
    `protect` makes of that network looks after every step. Started by `torchrun`, all processes take their
    part in it (`trainer.team`), and the first one reports and saves.
    Raises CheckpointError when the checkpoint belongs to another recipe or data, TrainingError when the
    loss is not finite or `initial` is of another network.
    """
    training, process, team = recipe.training, recipe.process.build(), current()
    rows = team.rows(training.batch_size)
    team.call(
        recipe, data, checkpoint, device,
        resume=resume, max_minutes=max_minutes, until=until, initial=initial,
    )  # fmt: skip
    progress = Progress(
        recipe_digest(recipe), data.snapshot, training.steps, choose_precision(training.precision, device)
    )
    found = find_checkpoint(checkpoint) if resume else None
    if found is not None:
        saved = read_progress(found)
        if (saved.recipe_digest, saved.snapshot) != (progress.recipe_digest, progress.snapshot):
            raise CheckpointError(f"{checkpoint} was written with another recipe or other images")
        progress = saved
    AcceleratorState._reset_state(reset_partial_state=True)  # allow several runs in one process
    accelerator = Accelerator(cpu=device == "cpu", mixed_precision=progress.precision)

    torch.manual_seed(training.seed)
    net = channels_last(UNet(recipe.network.config(data.preprocess.channels, len(data.parts))))
    if initial is not None:
        load_initial(net, initial)
    guard = None if protect is None else protect(net.to(accelerator.device))
    ema = copy.deepcopy(net).requires_grad_(False).to(accelerator.device)
    optimizer = torch.optim.AdamW(
        net.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay, fused=True
    )
    objective = Objective(recipe, team)
    state = objective.reduction if isinstance(objective.reduction, nn.Module) else None
    if found is not None:
        restore(found, net, ema, optimizer, state)
    model, optimizer = accelerator.prepare(net, optimizer)
    make_batch = BatchMaker(recipe, data.pixels, process, data.labels)
    planner = Planner(max_minutes, progress)

    def save() -> None:
        if team.leads:
            save_checkpoint(checkpoint, net, ema, optimizer, progress, state)

    def go_on() -> bool:
        progress.total_steps = int(team.first(progress.total_steps))
        return progress.step < until * progress.total_steps and not team.first(planner.out_of_time())

    smoothed = float("nan")
    with made_ahead(make_batch, progress.step) as take:
        while go_on():
            batch = take().rows(rows).to(accelerator.device)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(progress.step, progress.total_steps, training)
            loss = objective(model, batch, step_generator(training.seed, progress.step, team.rank))
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), training.clip_norm)
            if guard is not None:
                guard.before()
            optimizer.step()
            if guard is not None:
                guard.after()
            optimizer.zero_grad()
            update_ema(ema, net, progress.step, training.ema_decay)

            value = team.mean(float(loss.detach()))
            if not math.isfinite(value):
                raise TrainingError(
                    f"the loss is {value} at step {progress.step}; lower training.learning_rate"
                )
            progress.losses.append(value)
            progress.step += 1
            planner.after_step()
            first = progress.step == 1 or math.isnan(smoothed)
            smoothed = value if first else 0.98 * smoothed + 0.02 * value
            report(progress.step, progress.total_steps, smoothed)
            if progress.step % training.checkpoint_every == 0:
                save()
    save()
    return Trained(ema.cpu().eval(), progress)


def load_initial(net: UNet, weights: Path) -> None:
    """Begin where another training ended; TrainingError when its network was another one."""
    try:
        net.load_state_dict(load_file(weights))
    except (RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise TrainingError(f"the weights in {weights} are not of this network ({reason})") from None


def step_generator(seed: int, step: int, rank: int = 0) -> torch.Generator:
    """The randomness of a step's regulariser, in each process of its own."""
    return torch.Generator().manual_seed(((seed << 32) + step + rank * _APART) % 2**64)


class Planner:
    """Keeps a run inside its minutes: plans the number of steps once, then only stops if it must."""

    SETTLE, MEASURE = 3, 12  # steps before and until the speed is judged

    def __init__(self, max_minutes: float | None, progress: Progress) -> None:
        self._limit_s = None if max_minutes is None else 60.0 * max_minutes
        self._progress = progress
        self._planned = progress.step >= self.MEASURE
        self._last = self._settled = time.perf_counter()
        self._settled_at = progress.step

    def out_of_time(self) -> bool:
        return self._limit_s is not None and self._progress.seconds >= self._limit_s

    def after_step(self) -> None:
        now = time.perf_counter()
        self._progress.seconds += now - self._last
        self._last = now
        if self._progress.step <= self.SETTLE:
            self._settled, self._settled_at = now, self._progress.step
        if self._limit_s is None or self._planned or self._progress.step < self.MEASURE:
            return
        self._planned = True
        per_step = (now - self._settled) / (self._progress.step - self._settled_at)
        left_s = 0.97 * self._limit_s - self._progress.seconds
        affordable = self._progress.step + int(left_s / per_step)
        self._progress.total_steps = max(self._progress.step, min(self._progress.total_steps, affordable))
