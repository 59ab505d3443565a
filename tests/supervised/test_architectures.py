"""Architectures on backbones: sizes counted by hand, the papers' equations, whose parameters are whose, refusals."""

import itertools

import pytest
import torch

from mtrl_imgrad.errors import ArgumentError, UnknownNameError
from mtrl_imgrad.supervised.models import list_models, make_model, split_parameters
from mtrl_imgrad.supervised.models.gates import mixture
from mtrl_imgrad.supervised.tasks import TaskSpec
from tests.support.supervised.benchmark_tasks import NYUV2

THINGS = (TaskSpec("thing", "classification", 5), TaskSpec("length", "regression", 1))
TRUNKS = {"segnet": 24_943_296, "resnet18": 11_176_512, "resnet50": 23_508_032, "vit_tiny": 5_524_416}
"""Published, see test_models, test_backbones and test_vit."""
IMAGE_GATE = 8 * 8 * 3
LAST_STAGE = {
    "segnet": 2 * (64 * 64 * 9 + 64 + 2 * 64),  # two convolutions with bias, each with batch norm
    "resnet18": 8_393_728,  # 256 * 512 * 9 + 3 * 512 * 512 * 9 + 256 * 512 + 5 * 2 * 512
    "vit_tiny": 3 * (12 * 192**2 + 13 * 192) + 2 * 192,  # three blocks of twelve, and the last norm
}


def size_of(parameters):
    return sum(parameter.numel() for parameter in parameters)


def counts(name, tasks=NYUV2, **kwargs):
    """Parameters without heads, and those that are shared."""
    with torch.device("meta"):
        model = make_model(name, tasks, **kwargs)
    heads = sum(size_of(model.head(task.name).parameters()) for task in tasks)
    return size_of(model.parameters()) - heads, size_of(split_parameters(model).shared)


@pytest.mark.parametrize("backbone", ["segnet", "resnet18", "vit_tiny"])
def test_sizes_of_mixtures_follow_from_those_of_the_trunk(backbone):
    trunk = TRUNKS[backbone]
    assert counts(f"{backbone}_mmoe", experts=4) == (4 * trunk + 3 * (IMAGE_GATE + 1) * 4, 4 * trunk)
    gates = 3 * (IMAGE_GATE + 1) * (1 + 2)
    assert counts(f"{backbone}_cgc", experts=2) == (5 * trunk + gates, 2 * trunk)
    # Two more experts for each of the tasks.
    assert counts(f"{backbone}_cgc", own_experts=3)[0] == 10 * trunk + 3 * (IMAGE_GATE + 1) * 4


@pytest.mark.parametrize(
    ("backbone", "stages", "seen"), [("segnet", 10, 64), ("resnet18", 4, 256), ("vit_tiny", 4, 192)]
)
def test_sizes_of_ple_with_a_level_a_stage(backbone, stages, seen):
    """``seen``: channels before the last stage, which its gates read."""
    channels = {
        "segnet": (64, 128, 256, 512, 512, 512, 256, 128, 64),
        "resnet18": (64, 128, 256),
        "vit_tiny": (192,) * 3,
    }[backbone]
    reads = [IMAGE_GATE, *channels]
    own = [3 * (count + 1) * 2 for count in reads]
    shared_gates = sum((count + 1) * 4 for count in reads[:-1])
    total, shared = counts(f"{backbone}_ple", levels=stages)
    assert total == 4 * TRUNKS[backbone] + sum(own) + shared_gates
    assert reads[-1] == seen
    assert shared == total - own[-1] - own[-2] - 3 * LAST_STAGE[backbone]


@pytest.mark.parametrize(
    ("backbone", "stitched"), [("resnet18", 64 + 128 + 256), ("resnet50", 256 + 512 + 1024), ("vit_tiny", 3 * 192)]
)
def test_sizes_of_cross_stitch(backbone, stitched):
    """A number for every pair of networks and feature map before the stages 2 to 4."""
    total, shared = counts(f"{backbone}_cross_stitch")
    assert total == 3 * TRUNKS[backbone] + 9 * stitched
    if backbone in LAST_STAGE:
        assert shared == total - 3 * LAST_STAGE[backbone] - 9 * {"resnet18": 256, "vit_tiny": 192}[backbone]


@pytest.mark.parametrize(("depth", "channels"), [(18, (64, 128, 256, 512)), (50, (256, 512, 1024, 2048))])
def test_sizes_of_mtan_on_resnets(depth, channels):
    masks = links = 0
    for before, given in zip((0, *channels[:-1]), channels, strict=True):
        read, middle = given * (2 if before else 1), given // 4
        masks += read * middle + middle + 2 * middle + middle * given + given + 2 * given
        if before:  # 1 x 1, 3 x 3 and 1 x 1 without bias, the shortcut, four batch norms
            links += before * middle + 9 * middle**2 + middle * given + before * given + 2 * (2 * middle + 2 * given)
    trunk = TRUNKS[f"resnet{depth}"]
    assert counts(f"resnet{depth}_mtan") == (trunk + links + 3 * masks, trunk + links)


@pytest.mark.parametrize("name", [name for name in list_models() if name.startswith(("resnet18", "vit_tiny"))])
def test_tasks_of_whole_images(name):
    torch.manual_seed(0)
    model = make_model(name, THINGS, width=1 / 16)
    images = torch.rand(2, 3, 64, 32)
    found = model(images)
    assert {task: list(value.shape) for task, value in found.items()} == {"thing": [2, 5], "length": [2, 1]}
    alone = model.eval().predict(images, ["length"])
    assert list(alone) == ["length"]
    torch.testing.assert_close(alone["length"], model(images)["length"])


@pytest.mark.parametrize("architecture", ["mtan", "cross_stitch", "mmoe", "cgc", "ple"])
def test_a_task_may_be_alone(architecture):
    model = make_model(f"resnet18_{architecture}", THINGS[:1], width=1 / 16)
    assert model(torch.rand(2, 3, 32, 32))["thing"].shape == (2, 5)


def test_a_mixture_is_the_weighted_sum():
    weights = torch.tensor([[0.25, 0.75], [1.0, 0.0]])
    experts = [torch.full((2, 3, 4), 4.0), torch.full((2, 3, 4), 8.0)]
    assert torch.equal(mixture(weights, experts)[:, 0, 0], torch.tensor([7.0, 4.0]))


@pytest.mark.parametrize("architecture", ["mmoe", "cgc", "ple"])
def test_alike_experts_are_one_expert(architecture):
    """Gates sum to one at every level: with all experts alike they make no difference."""
    torch.manual_seed(0)
    kwargs = {"levels": 4} if architecture == "ple" else {}
    model = make_model(f"resnet18_{architecture}", THINGS, width=1 / 16, experts=2, **kwargs).eval()
    one = make_model("resnet18", THINGS, width=1 / 16).eval()
    for trunk in model.modules():
        if type(trunk) is type(one.trunk):
            trunk.load_state_dict(one.trunk.state_dict())
    one.task_heads.load_state_dict(model.task_heads.state_dict())
    images = torch.rand(2, 3, 64, 64)
    for task, expected in one(images).items():
        torch.testing.assert_close(model(images)[task], expected, rtol=1e-4, atol=1e-5)


def test_mmoe_is_its_equation():
    torch.manual_seed(0)
    model = make_model("vit_tiny_mmoe", THINGS, width=1 / 16, experts=2).eval()
    images = torch.rand(2, 3, 32, 32)
    layer = model.gates[1][2]
    averaged = images.unflatten(3, (8, 4)).unflatten(2, (8, 4)).mean(dim=(3, 5)).flatten(1)
    weights = torch.softmax(averaged @ layer.weight.T + layer.bias, dim=1)
    mixed = sum(weights[:, e, None, None, None] * model.experts[e](images) for e in range(2))
    torch.testing.assert_close(model(images)["length"], model.head("length")(mixed))


def test_stitches_of_one_are_networks_apart():
    torch.manual_seed(0)
    model = make_model("resnet18_cross_stitch", THINGS, width=1 / 16).eval()
    torch.testing.assert_close(model.stitches[0][1].weight[:, 0].detach(), torch.tensor([0.1, 0.9]))
    images = torch.rand(2, 3, 64, 64)
    together = model(images)["length"]
    with torch.no_grad():
        for index, stitch in itertools.chain(*(enumerate(place) for place in model.stitches)):
            stitch.weight.zero_()[index] = 1
    apart = model(images)["length"]
    torch.testing.assert_close(apart, model.head("length")(model.trunks[1](images)))
    assert not torch.allclose(together, apart)


def test_open_masks_of_mtan_leave_the_trunk_alone():
    torch.manual_seed(0)
    model = make_model("resnet18_mtan", THINGS, width=1 / 16).eval()
    with torch.no_grad():
        for masks in model.attentions:
            for mask in masks:
                mask[4].bias.fill_(100.0)  # of the last batch norm: the sigmoid is one
    images = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(model(images)["length"], model.head("length")(model.trunk(images)))


def test_a_combination_without_sense_is_refused_with_what_fits():
    for name in ("vit_tiny_mtan", "vit_small_mtan"):
        with pytest.raises(ArgumentError, match=f"goes with vit_.*{name}.*masks follow a convolutional.*_ple"):
            make_model(name, NYUV2)
    with pytest.raises(UnknownNameError, match="unknown model 'resnet18_mmeo'. Did you mean 'resnet18_mmoe'"):
        make_model("resnet18_mmeo", NYUV2)


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("segnet", {"experts": 2}, "takes no argument 'experts'; beside width it takes none"),
        ("vit_tiny_cgc", {"levels": 2}, "takes no argument 'levels'; beside width it takes experts, own_experts"),
        ("segnet_mmoe", {"experts": 0}, "experts must be an integer >= 1, got 0"),
        ("resnet18_ple", {"levels": 5}, "levels must be at most 4, the backbone's stages, got 5"),
        ("resnet18_ple", {"levels": 1}, "levels must be an integer >= 2, got 1"),
    ],
)
def test_bad_arguments_are_named(name, kwargs, message):
    with pytest.raises(ArgumentError, match=message):
        make_model(name, NYUV2, width=1 / 16, **kwargs)
