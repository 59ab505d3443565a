"""Networks: published sizes, the authors' numbers, whose parameters are whose, bad input."""

import itertools

import pytest
import torch

from mtrl_imgrad.errors import ArgumentError, UnknownNameError
from mtrl_imgrad.supervised.models import FeatureModel, list_models, make_model, split_parameters
from mtrl_imgrad.supervised.models.layers import DenseHead
from mtrl_imgrad.supervised.tasks import TaskSpec
from tests.support.supervised.benchmark_tasks import CELEBA, CITYSCAPES, NYUV2

OF_IMAGES = [name for name in list_models() if name.startswith(("segnet", "resnet18", "vit_tiny", "attribute_net"))]
"""The larger ResNet and ViT differ in numbers only; the network of molecules is in datasets/test_qm9_reader."""
DENSE = ("segnet", "segnet_mtan", "segnet_cross_stitch")


def _size(parameters):
    return sum(parameter.numel() for parameter in parameters)


def _tiny(name, **kwargs):
    tasks = CELEBA[:3] if name == "attribute_net" else NYUV2
    torch.manual_seed(0)
    return make_model(name, tasks, width=1 / 16, **kwargs)


def _images(name, batch=3):
    size = (batch, 3, 16, 16) if name == "attribute_net" else (batch, 3, 32, 64)
    return torch.rand(size, generator=torch.Generator().manual_seed(1))


# Published: the counts that the authors' networks have; 24 981 069 is the "1x" that MTAN's code prints sizes against.
@pytest.mark.parametrize(
    ("name", "tasks", "total", "shared_cagrad", "shared_nash"),
    [
        ("segnet", NYUV2, 25_055_185, 24_943_296, 24_943_296),
        ("segnet", NYUV2[:1], 24_981_069, 24_943_296, 24_943_296),
        ("segnet", CITYSCAPES, 25_017_672, 24_943_296, 24_943_296),
        ("segnet_mtan", NYUV2, 44_229_073, 35_163_456, 44_117_184),
        ("segnet_mtan", CITYSCAPES, 41_206_984, 35_163_456, 41_206_984 - 74_376),
        ("segnet_cross_stitch", NYUV2, 3 * 24_943_296 + 111_889 + 27, 74_607_579, 3 * 24_943_296 + 27),
        ("attribute_net", CELEBA, 5_197_160, 5_176_640, 5_176_640),
    ],
)
def test_parameter_counts_are_the_published_ones(name, tasks, total, shared_cagrad, shared_nash):
    with torch.device("meta"):
        model = make_model(name, tasks)
    assert _size(model.parameters()) == total
    for rule, shared in (("cagrad", shared_cagrad), ("nash", shared_nash)):
        split = split_parameters(model, rule)
        assert _size(split.shared) == shared
        assert _size(itertools.chain(*split.own.values())) == total - shared
        assert list(split.own) == [task.name for task in tasks]


def test_masks_of_mtan_have_the_published_size():
    with torch.device("meta"):
        model = make_model("segnet_mtan", NYUV2)
    heads = {parameter for task in NYUV2 for parameter in model.head(task.name).parameters()}
    own = set(itertools.chain(*split_parameters(model, "cagrad").own.values()))
    assert _size(own - heads) == 8_953_728
    assert _size(heads) == 111_889


# Two single values and the mean magnitude of each prediction, from the authors' own networks (nash-mtl for the first
# two, mtan for the third, FAMO for the last, whose outputs are probabilities), their widths divided by eight, with
# these parameters and this input, in float64 and training mode.
GOLDEN = {
    "segnet": {
        "segmentation": (-9.16241487, -10.4701606, 11.0108085),
        "depth": (-2.21324723, 9.67146261, 7.19434163),
        "normal": (0.0115964439, -0.640669299, 0.506753414),
    },
    "segnet_mtan": {
        "segmentation": (-10.5324162, -6.709399, 8.30868616),
        "depth": (1.26796426, 8.52309934, 5.30140492),
        "normal": (-0.0861495629, -0.544445886, 0.503476697),
    },
    "segnet_cross_stitch": {
        "segmentation": (-1.36668, -24.2656165, 11.9770597),
        "depth": (5.82806273, 6.03197476, 9.06034476),
        "normal": (-0.0592436881, -0.287131307, 0.518531273),
    },
}

GOLDEN_ATTRIBUTES = (0.00105803627, 0.513614428, 0.536735239)


def _fill(model):
    """Parameters that any framework can make."""
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            values = torch.cos(torch.arange(parameter.numel(), dtype=torch.float64) + number).view(parameter.shape)
            parameter.copy_(values if parameter.ndim > 1 else 1 + 0.2 * values)


def _wave(*shape):
    return torch.sin(torch.arange(torch.Size(shape).numel(), dtype=torch.float64) * 0.37).view(shape)


@pytest.mark.parametrize("name", DENSE)
@pytest.mark.parametrize("protocol", ["paper", "fixed"])
def test_predictions_are_those_of_the_authors_networks(name, protocol):
    model = make_model(name, NYUV2, width=1 / 8, protocol=protocol).double()
    _fill(model)
    with torch.no_grad():
        predictions = model(_wave(2, 3, 32, 64))
    for task, golden in GOLDEN[name].items():
        found = predictions[task]
        assert (float(found[0, 0, 5, 7]), float(found[1, -1, 20, 40]), float(found.abs().mean())) == pytest.approx(
            golden, rel=1e-6
        )


def test_attribute_predictions_are_those_of_the_authors_network():
    model = make_model("attribute_net", CELEBA, width=1 / 8).double()
    _fill(model)
    with torch.no_grad():
        found = torch.stack([torch.sigmoid(logits) for logits in model(_wave(8, 3, 16, 16)).values()])
    assert (float(found[0, 0]), float(found[39, 5]), float(found.mean())) == pytest.approx(GOLDEN_ATTRIBUTES, rel=1e-6)


@pytest.mark.parametrize("name", OF_IMAGES)
def test_predictions_have_their_shapes_and_every_parameter_its_gradient(name):
    model = _tiny(name)
    images = _images(name)
    predictions = model(images)
    assert list(predictions) == list(model.task_names)
    dense = {"segmentation": 13, "depth": 1, "normal": 3}
    for task in model.tasks:
        shape = (3, 1) if task.kind == "attribute" else (3, dense[task.kind], *images.shape[2:])
        assert predictions[task.name].shape == shape
    if name != "attribute_net":
        torch.testing.assert_close(predictions["segmentation"].exp().sum(1), torch.ones(3, 32, 64))
        torch.testing.assert_close(predictions["normal"].square().sum(1), torch.ones(3, 32, 64))
    sum(values.square().sum() for values in predictions.values()).backward()
    for parameter in model.parameters():
        assert parameter.grad.isfinite().all()


@pytest.mark.parametrize("name", OF_IMAGES)
def test_own_parameters_are_those_that_one_loss_reaches(name):
    """Independent of what a network says: autograd tells which losses a parameter feeds."""
    model = _tiny(name)
    parameters = list(model.parameters())
    reached = {parameter: set() for parameter in parameters}
    for task, prediction in model(_images(name)).items():
        found = torch.autograd.grad(prediction.square().sum(), parameters, retain_graph=True, allow_unused=True)
        for parameter, gradient in zip(parameters, found, strict=True):
            if gradient is not None:
                reached[parameter].add(task)
    split = split_parameters(model, "cagrad")
    for parameter in split.shared:
        assert reached[parameter] == set(model.task_names)
    for task, own in split.own.items():
        assert own
        for parameter in own:
            assert reached[parameter] == {task}
    assert {*split.shared, *itertools.chain(*split.own.values())} == set(parameters)


def test_a_predicate_may_share_more_but_not_less():
    model = _tiny("segnet_mtan")
    nash = split_parameters(model, "nash")
    by_name = split_parameters(model, lambda name: not name.startswith("task_heads"))
    assert all(a is b for a, b in zip(nash.shared, by_name.shared, strict=True))
    assert {task: len(own) for task, own in by_name.own.items()} == dict.fromkeys(model.task_names, 4)
    with pytest.raises(ArgumentError, match=r"'trunk\.encoder\.0\.first\.0\.weight' is no task's own"):
        split_parameters(model, lambda name: not name.startswith("trunk"))
    with pytest.raises(ArgumentError, match="rule must be .*, got 'nsh'. Did you mean 'nash'"):
        split_parameters(model, "nsh")


def test_frozen_parameters_are_nobodys():
    model = _tiny("segnet")
    before = split_parameters(model)
    model.trunk.encoder[0].requires_grad_(False)
    frozen = set(model.trunk.encoder[0].parameters())
    after = split_parameters(model)
    assert set(before.shared) - set(after.shared) == frozen


@pytest.mark.parametrize("name", OF_IMAGES)
def test_features_where_there_is_one_representation(name):
    model = _tiny(name)
    assert (
        model.has_features
        == isinstance(model, FeatureModel)
        == (name in ("segnet", "attribute_net", "resnet18", "vit_tiny"))
    )
    if model.has_features:
        model.eval()
        images = _images(name)
        for task, prediction in model.heads(model.features(images)).items():
            assert torch.equal(prediction, model(images)[task])


def test_a_normal_of_length_zero_has_no_nan_and_no_gradient_when_fixed():
    task = NYUV2[2]
    for protocol in ("fixed", "paper"):
        head = DenseHead(4, task, protocol)
        torch.nn.init.zeros_(head.output.bias)
        torch.nn.init.zeros_(head.spatial.bias)
        maps = torch.zeros(1, 4, 2, 2, requires_grad=True)
        normals = head(maps)
        (gradient,) = torch.autograd.grad(normals.sum(), head.output.bias)
        if protocol == "fixed":
            assert torch.equal(normals, torch.zeros(1, 3, 2, 2))
            assert torch.equal(gradient, torch.zeros(3))
        else:
            assert normals.isnan().all()


def test_networks_start_xavier_normal_with_zero_biases():
    torch.manual_seed(0)
    model = make_model("segnet", NYUV2, width=1 / 4)
    convolution = model.trunk.encoder[3].first[0]
    fans = (convolution.in_channels + convolution.out_channels) * 9
    assert float(convolution.weight.detach().std()) == pytest.approx((2 / fans) ** 0.5, rel=0.02)
    assert all(not layer.bias.any() for layer in model.modules() if isinstance(layer, torch.nn.Conv2d))


def test_stitches_start_as_a_sum():
    model = _tiny("segnet_cross_stitch")
    assert torch.equal(model.encoder_stitches, torch.ones(4, 3))
    assert torch.equal(model.decoder_stitches, torch.ones(5, 3))


@pytest.mark.parametrize(
    ("name", "tasks", "kwargs", "message"),
    [
        ("segnett", NYUV2, {}, "unknown model 'segnett'. Did you mean 'segnet'"),
        ("segnet", (), {}, "tasks must name at least one task"),
        ("segnet", NYUV2 * 2, {}, "different names, got 'segmentation', 'depth', 'normal' more than once"),
        ("segnet", CELEBA[:1], {}, "no head for task 'attribute_0' of kind 'attribute'; kinds: depth, normal, seg"),
        ("attribute_net", NYUV2[1:2], {}, "no head for task 'depth' of kind 'depth'; kinds: attribute"),
        ("segnet", NYUV2, {"width": 0.001}, "width must leave at least one feature map of 64, got 0.001"),
        ("segnet", NYUV2, {"width": -1.0}, "width must be a positive number of at most 1000, got -1.0"),
        ("attribute_net", CELEBA, {"width": float("nan")}, "width must be a number, got nan"),
        ("segnet", NYUV2, {"protocol": "papre"}, "protocol must be .*, got 'papre'. Did you mean 'paper'"),
    ],
)
def test_bad_arguments_are_named(name, tasks, kwargs, message):
    with pytest.raises(ArgumentError, match=message):
        make_model(name, tasks, **kwargs)


@pytest.mark.parametrize("name", OF_IMAGES)
@pytest.mark.parametrize("shape", [(1, 3, 33, 64), (1, 1, 32, 32), (3, 32, 32), (1, 3, 4, 64)])
def test_images_of_another_size_are_refused(name, shape):
    if name == "attribute_net" and shape == (1, 3, 33, 64):
        shape = (1, 4, 64, 64)
    with pytest.raises(ArgumentError, match=r"images must be \[B, 3, H, W\]"):
        _tiny(name)(torch.zeros(shape))


def test_unknown_task_of_a_model():
    with pytest.raises(UnknownNameError, match="unknown task 'normals'. Did you mean 'normal'"):
        _tiny("segnet_mtan").own_modules("normals")


def test_a_task_may_have_any_name():
    model = make_model("segnet", [TaskSpec("depth.1", "depth", 1), TaskSpec("type", "depth", 1)], width=1 / 16)
    assert list(model(_images("segnet"))) == ["depth.1", "type"]
