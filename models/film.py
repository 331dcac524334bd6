"""A reconstruction as a film: what the network was shown of one image, and what it made of it.

Every frame is taken from the reconstruction itself while it runs (`models.drive.watched`): the noisy images
that it asks about, at their timesteps, and the clean images that the answers imply. A chain's frames begin
with the image under growing amounts of the very noise that the chain starts from.
"""

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.drive import Ask
from models.process import DiffusionProcess, implied_eps, predict_x0, q_sample
from models.profiles import ChainProfile, InputGuidedProfile, Profile
from models.samplers import column

Float = NDArray[np.float32]
MOST_FRAMES = 24
_NOISING = 8
_MOST_VALUES = 12_000_000  # of the frames of a film together: large images get fewer
_FEWEST = 4


class Frame(NamedTuple):
    """One picture of the film, both images `[C, H, W]` in about [-1, 1]."""

    phase: Literal["noising", "denoising"]
    t: float
    number: int  # of the network's evaluations until here
    noisy: Float  # the image with the noise of timestep t
    clean: Float | None  # what the network takes for the part without noise; None while noise is added


class Filming:
    """Looks on at the reconstruction of one image and hands out frames, evenly chosen of many."""

    def __init__(
        self,
        process: DiffusionProcess,
        profile: Profile,
        image: Float,
        show: Callable[[Frame], None],
        most: int = MOST_FRAMES,
    ) -> None:
        """`image [C, H, W]` as the network sees it; `show` is called wherever the reconstruction runs."""
        self._process, self._profile, self._image, self._show = process, profile, image, show
        self._draws: int = getattr(profile, "draws", 1)
        self.total = profile.network_calls
        self.done = 0  # evaluations of the network
        frames, most = self.total // self._draws, min(most, max(_FEWEST, _MOST_VALUES // image.size))
        self._kept = set(np.linspace(0, frames - 1, min(frames, most)).round().astype(int).tolist())

    def __call__(self, ask: Ask, eps: Float) -> None:
        """One exchange with the network."""
        if self.done == 0:
            for frame in self._noising(ask):
                self._show(frame)
        # Draws of one timestep lie beside each other and are one frame.
        for start in range(0, len(ask.t), self._draws):
            rows = slice(start, start + self._draws)
            number = self.done // self._draws
            self.done += self._draws
            if number in self._kept:
                self._show(self._frame(ask.x_t[rows], ask.t[rows], eps[rows]))

    def _frame(self, x_t: Float, t: Float, eps: Float) -> Frame:
        clean = np.clip(predict_x0(x_t, eps, column(self._process.abar(t))), -1.0, 1.0).mean(axis=0)
        return Frame("denoising", float(t[0]), self.done, x_t[0], np.asarray(clean))

    def _noising(self, ask: Ask) -> Iterator[Frame]:
        """The way from the image to what the chain starts from; other kinds draw noise for each timestep."""
        profile = self._profile
        if not isinstance(profile, (ChainProfile, InputGuidedProfile)):
            return
        noise = implied_eps(ask.x_t[0], self._image, np.float32(self._process.abar(profile.t_noise)))
        for t in np.linspace(0.0, profile.t_noise, _NOISING):
            noisy = q_sample(self._image, noise, np.float32(self._process.abar(t)))
            yield Frame("noising", float(t), 0, noisy, None)
