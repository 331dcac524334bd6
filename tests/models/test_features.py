"""Comparing features: the cosine's known values, nothing for equal images, more where they differ."""

import pytest
import torch

from models.backbone import Backbone
from models.features import cosine_distance, feature_distance
from models.unet import UNet, UNetConfig


def test_cosine_distance_of_known_directions() -> None:
    a = torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1)
    others = torch.tensor([[3.0, 0.0], [0.0, 2.0], [-1.0, 0.0]])
    found = [float(cosine_distance(a, other.reshape(1, 2, 1, 1))) for other in others]
    assert found == pytest.approx([0, 1, 2], abs=1e-6)


@pytest.mark.parametrize("source", ["network", "backbone"])
def test_the_distance_is_zero_for_equal_images_and_largest_where_they_differ(source: str) -> None:
    torch.manual_seed(0)
    net = UNet(UNetConfig(channels=1, widths=(16, 24), blocks=1, patch=2, attention=False)).eval()
    compare = feature_distance([source], net, Backbone().eval())  # type: ignore[list-item]
    x = torch.rand(2, 1, 128, 128) * 2 - 1
    y = x.clone()
    y[1, :, 48:80, 48:80] = 0.5
    with torch.inference_mode():
        (found,) = compare(x, y)
    assert found.shape == (2, 128, 128)
    assert float(found[0].max()) == 0
    assert float(found[1, 56:72, 56:72].mean()) > 5 * float(found[1, :8, :8].mean())


def test_a_backbone_that_is_not_there_is_named() -> None:
    net = UNet(UNetConfig(channels=1, widths=(16, 24), blocks=1, patch=2, attention=False))
    with pytest.raises(ValueError, match="no backbone"):
        feature_distance(["backbone"], net, None)
