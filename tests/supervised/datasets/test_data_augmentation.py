"""Zooming and mirroring against what they mean for geometry."""

from collections import Counter

import numpy as np
import pytest
import torch

from mtrl_imgrad.supervised.datasets import View, apply_view, draw_view
from mtrl_imgrad.supervised.datasets.augmentation import SCALES
from tests.support.supervised.random_samples import dense_sample

HEIGHT, WIDTH = 48, 64


@pytest.fixture
def layers():
    sample = dense_sample(0)
    return {
        "image": torch.tensor(sample.image).permute(2, 0, 1),
        "segmentation": torch.tensor(sample.label)[None].double(),
        "depth": torch.tensor(sample.depth)[None],
        "normal": torch.tensor(sample.normal).permute(2, 0, 1),
    }


def _view(scale, top=0, left=0, flip=False):
    return View(scale, top, left, int(HEIGHT / scale), int(WIDTH / scale), flip)


def test_mirroring_twice_is_nothing_and_once_negates_x(layers):
    once = apply_view(layers, _view(1.0, flip=True))
    twice = apply_view(once, _view(1.0, flip=True))
    for name, layer in layers.items():
        assert torch.equal(twice[name], layer)
    normal = layers["normal"]
    assert torch.equal(once["normal"][0], -normal[0].flip(-1))
    assert torch.equal(once["normal"][1:], normal[1:].flip(-1))
    assert torch.equal(once["depth"], layers["depth"].flip(-1))


@pytest.mark.parametrize("scale", [1.2, 1.5])
def test_nearest_layers_take_the_pixels_below(layers, scale):
    seen = apply_view(layers, _view(scale, top=5, left=7))
    rows = 5 + np.floor(np.arange(HEIGHT) * int(HEIGHT / scale) / HEIGHT).astype(int)
    columns = 7 + np.floor(np.arange(WIDTH) * int(WIDTH / scale) / WIDTH).astype(int)
    expected = layers["segmentation"][:, rows][:, :, columns]
    assert torch.equal(seen["segmentation"], expected)
    assert torch.equal(seen["depth"], layers["depth"][:, rows][:, :, columns] / scale)


def test_bilinear_layers_keep_the_crops_corners_and_ramps():
    ramp = torch.linspace(0, 1, WIDTH).double().expand(3, HEIGHT, WIDTH)
    view = _view(1.5, top=3, left=10)
    seen = apply_view({"image": ramp}, view)["image"]
    expected = torch.linspace(float(ramp[0, 0, 10]), float(ramp[0, 0, 10 + view.width - 1]), WIDTH).double()
    torch.testing.assert_close(seen, expected.expand_as(seen), atol=1e-6, rtol=0)


def test_zoomed_depth_and_inverse_depth_speak_of_the_same_scene(layers):
    depth = layers["depth"] + 0.5
    for flip in (False, True):
        view = _view(1.5, top=2, left=9, flip=flip)
        near = apply_view({"depth": depth}, view)["depth"]
        inverse = apply_view({"depth": 1 / depth}, view, inverse_depth=True)["depth"]
        torch.testing.assert_close(near * inverse, torch.ones_like(near))
        published = apply_view({"depth": 1 / depth}, view, inverse_depth=True, protocol="paper")["depth"]
        torch.testing.assert_close(published, inverse / 1.5**2)
        assert torch.equal(apply_view({"depth": depth}, view, protocol="paper")["depth"], near)


def test_resampled_normals_are_unit_or_unknown(layers):
    view = _view(1.5, top=0, left=4, flip=True)
    length = apply_view(layers, view)["normal"].norm(dim=0)
    known = length > 0
    torch.testing.assert_close(length[known], torch.ones_like(length[known]))
    assert 0 < known.double().mean() < 1
    published = apply_view(layers, view, protocol="paper")["normal"].norm(dim=0)
    assert ((published > 0) & (published < 0.9)).any()


def test_a_pixel_is_known_where_most_of_its_weight_is():
    normal = torch.zeros(3, HEIGHT, WIDTH)
    normal[2, :, 20:] = 1
    view = _view(1.5, left=10)
    share = apply_view({"image": (normal != 0).any(0).expand(3, -1, -1).float()}, view)["image"][0]
    seen = apply_view({"normal": normal}, view)["normal"]
    assert torch.equal(seen[2], (share > 0.5).float())


def test_opposite_normals_leave_no_direction():
    normal = torch.zeros(3, HEIGHT, WIDTH)
    normal[0, :, ::2], normal[0, :, 1::2] = 1, -1
    seen = apply_view({"normal": normal}, _view(1.2))["normal"]
    assert torch.isfinite(seen).all()
    assert set(seen[0].abs().unique().tolist()) <= {0.0, 1.0}


def test_views_are_uniform_and_inside():
    generator = torch.Generator().manual_seed(0)
    views = [draw_view(HEIGHT, WIDTH, generator) for _ in range(3000)]
    counts = Counter((view.scale, view.flip) for view in views)
    assert set(counts) == {(scale, flip) for scale in SCALES for flip in (False, True)}
    assert all(abs(count - 500) < 5 * (500 * 5 / 6) ** 0.5 for count in counts.values())
    widest = [view for view in views if view.scale == 1.5]
    assert {view.top for view in widest} == set(range(HEIGHT - 32 + 1))
    assert {view.left for view in widest} == set(range(WIDTH - 42 + 1))
    assert all((view.height, view.width) == (32, 42) for view in widest)
