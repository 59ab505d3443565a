"""Vision transformers: stated sizes and names, torch's own encoder as the oracle, weights from a file, image sizes."""

import pytest
import torch
from torch import nn

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.supervised.models import load_backbone, make_model
from mtrl_imgrad.supervised.models.vit import ViTTrunk
from mtrl_imgrad.supervised.tasks import TaskSpec

THING = TaskSpec("thing", "classification", 5)
BLOCK = (
    "norm1.weight norm1.bias attn.qkv.weight attn.qkv.bias attn.proj.weight attn.proj.bias norm2.weight norm2.bias "
    "mlp.fc1.weight mlp.fc1.bias mlp.fc2.weight mlp.fc2.bias"
).split()
ENDS = ("cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias", "norm.weight", "norm.bias")
MEAN, STD = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
"""Of ImageNet, which torchvision's networks expect pixels to be normalised with."""


@pytest.fixture
def trunk():
    torch.manual_seed(0)
    trunk = ViTTrunk(heads=3, width=1 / 4).eval()
    for parameter in trunk.parameters():  # so that no bias or scale is at its first value
        nn.init.normal_(parameter, std=0.1)
    return trunk


def oracle(trunk, patches, positions):
    """torch's own encoder on embedded patches ``[B, N, C]``; the last norm with it."""
    state = trunk.state_dict()
    channels = trunk.channels
    layer = nn.TransformerEncoderLayer(
        channels, trunk.blocks[0].heads, 4 * channels, 0.0, "gelu", 1e-6, batch_first=True, norm_first=True
    )
    encoder = nn.TransformerEncoder(layer, 12, nn.LayerNorm(channels, eps=1e-6), enable_nested_tensor=False).eval()
    names = {"self_attn.in_proj_": "attn.qkv.", "self_attn.out_proj.": "attn.proj."}
    names |= {"linear1.": "mlp.fc1.", "linear2.": "mlp.fc2."}
    filled = {}
    for name in encoder.state_dict():
        ours = name.replace("layers.", "blocks.")
        for theirs, other in names.items():
            ours = ours.replace(theirs, other)
        filled[name] = state[ours]
    encoder.load_state_dict(filled)
    tokens = torch.cat([trunk.cls_token.expand(len(patches), -1, -1), patches], dim=1)
    return encoder(tokens + positions)


def as_torchvision(state):
    """The same weights in torchvision's names."""
    table = {
        "cls_token": "class_token",
        "pos_embed": "encoder.pos_embedding",
        "patch_embed.proj": "conv_proj",
        "blocks.": "encoder.layers.encoder_layer_",
        ".norm1": ".ln_1",
        ".norm2": ".ln_2",
        ".attn.qkv.": ".self_attention.in_proj_",
        ".attn.proj": ".self_attention.out_proj",
        "mlp.fc1": "mlp.0",
        "mlp.fc2": "mlp.3",
    }
    renamed = {}
    for name, value in state.items():
        new = "encoder.ln." + name.removeprefix("norm.") if name.startswith("norm.") else name
        for ours, theirs in table.items():
            new = new.replace(ours, theirs)
        renamed[new] = value
    return renamed


@pytest.mark.parametrize(("heads", "channels", "stated"), [(3, 192, 5_717_416), (6, 384, 22_050_664)])
def test_sizes_and_names_are_those_of_timm(heads, channels, stated):
    """5.72 and 22.05 million, with the dense layer for 1000 classes."""
    with torch.device("meta"):
        trunk = ViTTrunk(heads, width=1)
    assert sum(p.numel() for p in trunk.parameters()) + (channels + 1) * 1000 == stated
    assert set(trunk.state_dict()) == {*ENDS, *(f"blocks.{k}.{name}" for k in range(12) for name in BLOCK)}
    assert trunk.pos_embed.shape == (1, 197, channels)


def test_maps_are_those_of_torchs_encoder(trunk):
    images = torch.rand(2, 3, 224, 224)
    embed = trunk.patch_embed["proj"]
    with torch.no_grad():
        # The patches as rows, by reshaping instead of a convolution.
        rows = (2 * images - 1).unflatten(3, (14, 16)).unflatten(2, (14, 16)).permute(0, 2, 4, 1, 3, 5).flatten(3)
        patches = (rows @ embed.weight.flatten(1).T + embed.bias).flatten(1, 2)
        expected = oracle(trunk, patches, trunk.pos_embed)[:, 1:].transpose(1, 2).unflatten(2, (14, 14))
        torch.testing.assert_close(trunk(images), expected, rtol=1e-4, atol=1e-5)


def test_position_embeddings_follow_the_image(trunk):
    with torch.no_grad():
        trunk.pos_embed[:, 1:] = torch.linspace(0, 1, 14).repeat_interleave(14)[None, :, None]  # grows downwards
        trunk.patch_embed["proj"].weight.zero_()
        trunk.patch_embed["proj"].bias.zero_()
        kept = []
        tokens = trunk._embed(torch.rand(1, 3, 112, 448), kept)
    assert tuple(kept[0]) == (7, 28)
    grid = tokens[0, 1:, 0].view(7, 28)
    torch.testing.assert_close(grid, grid[:, :1].expand(7, 28))  # alike along a row, still growing downwards
    assert (grid[1:, 0] > grid[:-1, 0]).all()
    torch.testing.assert_close(grid[3, 0], torch.tensor(0.5), atol=1e-4, rtol=0)
    with pytest.raises(ArgumentError, match="multiples of 16"):
        trunk(torch.rand(1, 3, 40, 32))


@pytest.mark.parametrize("naming", ["timm", "torchvision"])
@pytest.mark.parametrize("name", ["vit_tiny", "vit_tiny_mmoe"])
def test_weights_come_from_a_local_file(tmp_path, naming, name):
    torch.manual_seed(0)
    source, model = make_model("vit_tiny", [THING]).eval(), make_model(name, [THING]).eval()
    state, images = source.trunk.state_dict(), torch.rand(1, 3, 32, 48)
    if naming == "torchvision":
        state = {**as_torchvision(state), "heads.head.weight": torch.zeros(1000, 192)}
        seen = (images - MEAN) / STD / 2 + 0.5  # what is the same to a network that normalises with 0.5
    else:
        state, seen = {**state, "head.weight": torch.zeros(1000, 192)}, images
    torch.save(state, tmp_path / "vit.pth")
    load_backbone(model, tmp_path / "vit.pth")
    for trunk in [model.trunk] if name == "vit_tiny" else model.experts:
        torch.testing.assert_close(trunk(images), source.trunk(seen), rtol=1e-4, atol=1e-5)


def test_a_file_for_larger_images_is_resampled_and_another_network_refused(tmp_path):
    model = make_model("vit_tiny", [THING])
    state = {**model.trunk.state_dict(), "pos_embed": torch.ones(1, 1 + 24 * 24, 192)}
    torch.save(state, tmp_path / "vit_384.pth")
    load_backbone(model, tmp_path / "vit_384.pth")
    torch.testing.assert_close(model.trunk.pos_embed.detach(), torch.ones(1, 197, 192))
    with pytest.raises(ArgumentError, match=r"vit_384.pth does not hold the weights of vit_small .*size mismatch"):
        load_backbone(make_model("vit_small", [THING]), tmp_path / "vit_384.pth")
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "resnet.pth")
    with pytest.raises(ArgumentError, match=r"resnet.pth does not hold the weights of vit_tiny .*Missing key"):
        load_backbone(model, tmp_path / "resnet.pth")
