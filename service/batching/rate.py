"""How long the engine will be busy, from what its calls have cost with few and with many images in them."""

GUESSED_IMAGE_S = 1.0
"""Until an image has been measured."""
_MEMORY = 0.9995  # of one call to the next: a 250-step chain must be remembered to its end
_TINY = 1e-9


class ServiceRate:
    """Fits `seconds of a call = a + b * images in it`, and counts the calls that an image takes part in.

    On a GPU a call costs hardly more for many images than for one (a large), on a CPU in proportion (b
    large). Until calls of different sizes were seen it is taken to be in proportion, the slower of the two.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._calls = self._images = self._squares = 0.0  # decayed sums over calls: 1, n, n^2
        self._seconds = self._products = 0.0  # s, n s
        self._ended = 0.0

    def observe(self, call_s: float, images: int, ended: int) -> None:
        """One call of `images`, of which `ended` then had their result."""
        self._calls = _MEMORY * self._calls + 1
        self._images = _MEMORY * self._images + images
        self._squares = _MEMORY * self._squares + images**2
        self._seconds = _MEMORY * self._seconds + call_s
        self._products = _MEMORY * self._products + images * call_s
        self._ended = _MEMORY * self._ended + ended

    def call_s(self, images: int) -> float | None:
        """What a call with so many images costs; None until there has been one."""
        if self._calls < 1:
            return None
        mean_n, mean_s = self._images / self._calls, self._seconds / self._calls
        variance = self._squares / self._calls - mean_n**2
        slope = mean_s / mean_n  # in proportion
        if variance > _TINY:
            slope = min(max((self._products / self._calls - mean_n * mean_s) / variance, 0.0), slope)
        return mean_s + slope * (images - mean_n)

    def wait_s(self, images: int) -> float:
        """How long so many images keep the engine busy, as many at once as there are slots."""
        if images <= 0:
            return 0.0
        together = min(images, self._slots)
        cost_s = self.call_s(together)
        if cost_s is None or self._ended < _TINY:
            return images * GUESSED_IMAGE_S
        return images / together * cost_s * self._images / self._ended
