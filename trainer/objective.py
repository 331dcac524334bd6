"""The loss of a training step, put together from the recipe's slots."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from models.losses import PENALTIES, REDUCTIONS
from models.process import clean_estimate, implied_eps, noise_estimate
from models.regularizers import REGULARIZERS
from trainer.batches import Batch
from trainer.recipe import Recipe
from trainer.team import ALONE, Team

Model = Callable[..., Tensor]
"""`x_t [B, C, H, W]`, timesteps `[B]` and, where there are several parts, labels `[B]` -> a prediction."""

_FLOOR = 0.1  # keeps the weight of nearly noiseless samples finite
_TYPICAL = 5.0  # about the mean weight under quadratic timesteps; only sets the scale of the loss


class Objective:
    """`penalty(residual)` reduced to a scalar, plus the regulariser's term.

    The residual is that of the noise (`target = "noise"`, Ho et al. 2020), or that of the clean image,
    weighted by `1 / (sigma + 0.1)` (`"clean"`): with painted defects the noise that leads from the clean
    target to the input is as large as defect / sigma, and its loss would drown in the lowest timesteps.

    In a `team` losses are reduced over all its rows, the regulariser's term over this process's own.
    """

    def __init__(self, recipe: Recipe, team: Team = ALONE) -> None:
        training = recipe.training
        self._team = team
        self._target = training.target
        self._scale = recipe.network.clean_scale
        self._penalty = training.penalty.build("penalty", PENALTIES)
        self.reduction = training.reduction.build("reduction", REDUCTIONS)
        self._regularized = training.regularizer.name != "none"
        self._regularizer = training.regularizer.build("regularizer", REGULARIZERS)

    def __call__(self, model: Model, batch: Batch, generator: torch.Generator) -> Tensor:
        """Mean loss of a batch, a scalar with its graph."""
        known = () if batch.label is None else (batch.label,)
        prediction = model(batch.x_t, batch.t, *known).float()
        if self._target == "noise":
            eps = noise_estimate(prediction, batch.abar, self._scale)
            residual = eps - implied_eps(batch.x_t, batch.x0, batch.abar)
            loss = self._reduced(self._penalty(residual, batch.t), batch.t)
        else:
            residual = clean_estimate(batch.x_t, prediction, batch.abar, self._scale) - batch.x0
            sigma = ((1.0 - batch.abar) / batch.abar).sqrt()
            weight = 1.0 / (sigma + _FLOOR) / _TYPICAL
            loss = self._reduced(self._penalty(residual, batch.t) * weight, batch.t)
        if self._regularized:

            def predict(x_t: Tensor, t: Tensor) -> Tensor:
                return noise_estimate(model(x_t, t, *known).float(), batch.abar, self._scale)

            eps = noise_estimate(prediction, batch.abar, self._scale)
            loss = loss + self._regularizer(predict, batch.x_t, batch.t, eps, batch.abar.flatten(), generator)
        return loss

    def _reduced(self, losses: Tensor, t: Tensor) -> Tensor:
        if self._team.size > 1:  # every reduction begins with the means of the samples
            losses, t = self._team.gather(losses.flatten(1).mean(1)[:, None]), self._team.gather(t)
        reduced: Tensor = self.reduction(losses, t)
        return reduced


def focal_loss(logit: Tensor, truth: Tensor, gamma: float = 2.0, positive: float = 5.0) -> Tensor:
    """Focal loss (Lin et al. 2017) of logits against shares of defective pixels, both `[B, H, W]`.

    Defective pixels weigh `positive` times as much.
    """
    entropy = F.binary_cross_entropy_with_logits(logit, truth, reduction="none")
    probability = logit.sigmoid()
    right = truth * probability + (1.0 - truth) * (1.0 - probability)
    return ((1.0 - right) ** gamma * entropy * (1.0 + (positive - 1.0) * truth)).mean()
