"""The inspection service: images in over HTTP, verdicts with heatmaps out."""

from service.settings import limit_opencv

# OpenCV reads its pixel limit once, when it is first imported; no module below may come before this.
limit_opencv()
