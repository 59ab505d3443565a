"""ResNets: stated sizes and names, resolution, heads of both sorts, weights from a file."""

import pytest
import torch
from torch import nn

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.supervised.models import load_backbone, make_model, split_parameters
from mtrl_imgrad.supervised.models.resnet import ResNetTrunk
from mtrl_imgrad.supervised.tasks import TaskSpec
from tests.support.supervised.benchmark_tasks import CITYSCAPES, NYUV2

CHANNELS = (64, 128, 256, 512)
THING = TaskSpec("thing", "classification", 5)


def trunk_of(depth, dilated):
    with torch.device("meta"):
        return ResNetTrunk(depth, CHANNELS, dilated)


@pytest.mark.parametrize("dilated", [False, True])
@pytest.mark.parametrize(("depth", "stated", "features"), [(18, 11_689_512, 512), (50, 25_557_032, 2048)])
def test_sizes_are_the_stated_ones(depth, stated, features, dilated):
    """As torchvision's documentation states them, with the dense layer for 1000 classes."""
    trunk = trunk_of(depth, dilated)
    assert sum(p.numel() for p in trunk.parameters()) + (features + 1) * 1000 == stated
    assert trunk.channels == features


@pytest.mark.parametrize(
    ("depth", "names"),
    [
        (18, ["conv1.weight", "bn1.running_var", "layer1.1.conv2.weight", "layer2.0.downsample.0.weight"]),
        (50, ["layer1.0.downsample.1.weight", "layer3.5.conv3.weight", "layer4.2.bn3.bias"]),
    ],
)
def test_parameters_have_the_published_names(depth, names):
    state = trunk_of(depth, dilated=True).state_dict()
    assert set(names) <= set(state)
    assert len(state) == {18: 120, 50: 318}[depth]  # 122 and 320 with fc


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_dense_tasks_get_maps_of_the_images_size_and_image_tasks_a_vector(name):
    torch.manual_seed(0)
    model = make_model(name, (*NYUV2, THING), width=1 / 16)
    images = torch.rand(2, 3, 32, 40)
    assert model.features(images).shape[2:] == (4, 5)
    found = model(images)
    shapes = {task: list(value.shape) for task, value in found.items()}
    assert shapes == {
        "segmentation": [2, 13, 32, 40],
        "depth": [2, 1, 32, 40],
        "normal": [2, 3, 32, 40],
        "thing": [2, 5],
    }
    torch.testing.assert_close(found["thing"].exp().sum(1), torch.ones(2))
    torch.testing.assert_close(found["normal"].norm(dim=1), torch.ones(2, 32, 40))
    assert make_model(name, [THING], width=1 / 16).features(torch.rand(1, 3, 64, 64)).shape[2:] == (2, 2)
    with pytest.raises(ArgumentError, match="multiples of 8"):
        model(torch.rand(1, 3, 30, 40))


def test_the_trunk_is_shared_and_the_heads_are_the_tasks_own():
    model = make_model("resnet18", CITYSCAPES, width=1 / 16)
    split = split_parameters(model)
    assert {id(p) for p in split.shared} == {id(p) for p in model.trunk.parameters()}
    losses = [value.sum() for value in model(torch.rand(2, 3, 16, 16)).values()]
    reached = torch.autograd.grad(losses[1], split.own["segmentation"], allow_unused=True)
    assert all(gradient is None for gradient in reached)


def test_weights_come_from_a_local_file(tmp_path):
    torch.manual_seed(0)
    model, other = (make_model("resnet18", [THING]) for _ in range(2))
    state = {**model.trunk.state_dict(), "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    torch.save(state, tmp_path / "resnet18.pth")
    load_backbone(other, tmp_path / "resnet18.pth")
    images = torch.rand(1, 3, 32, 32)
    assert torch.equal(model.eval().features(images), other.eval().features(images))
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "part.pth")
    with pytest.raises(ArgumentError, match=r"part.pth does not hold the weights of resnet18 .*Missing key"):
        load_backbone(other, tmp_path / "part.pth")
    assert torch.equal(model.features(images), other.features(images)), "as it was"
    torch.save(nn.Linear(2, 2), tmp_path / "code.pth")
    with pytest.raises(ArgumentError, match=r"code.pth does not hold"):
        load_backbone(other, tmp_path / "code.pth")
    with pytest.raises(ArgumentError, match="model must be on a ResNet or a ViT .*, got 'segnet'"):
        load_backbone(make_model("segnet", CITYSCAPES, width=1 / 16), tmp_path / "part.pth")


@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        (lambda state: {"state_dict": state, "epoch": 3}, "entries state_dict, epoch; expected tensors by name"),
        (lambda state: [state], "a list; expected tensors by name"),
        (lambda state: {f"module.{name}": value for name, value in state.items()}, "all names begin with 'module.'"),
    ],
)
def test_wrapped_weights_are_told_with_the_remedy(tmp_path, wrap, message):
    model = make_model("resnet18", CITYSCAPES, width=1 / 16)
    torch.save(wrap({"conv1.weight": torch.zeros(1), "bn1.weight": torch.zeros(1)}), tmp_path / "mine.pth")
    with pytest.raises(ArgumentError, match=rf"mine.pth does not hold the weights of resnet18 \({message}"):
        load_backbone(model, tmp_path / "mine.pth")
