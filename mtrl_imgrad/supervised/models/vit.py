"""Vision transformers (Dosovitskiy et al., ICLR 2021, arXiv 2010.11929), with parameters named as timm names them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own name for it)
from torch import Tensor, nn

from mtrl_imgrad.supervised.models.layers import scaled
from mtrl_imgrad.supervised.models.trunk import IMAGENET_MEAN, IMAGENET_STD, Trunk, check_images
from mtrl_imgrad.supervised.models.vit_names import timm_names

PATCH = 16
_GRID = 14
"""Patches a side that the position embeddings are made for: images of 224 x 224."""
_DEPTH, _STAGES = 12, 4
_HEAD = 64
"""Channels of an attention head."""
_EPS = 1e-6
_CENTRE, _SPREAD = 0.5, 0.5
"""What pixels from 0 to 1 are normalised with, as timm's vit_tiny_patch16_224 expects them."""


class ViTTrunk(Trunk):
    """Twelve blocks in four stages, patches of 16 x 16, a class token; position embeddings follow the image's size.

    Maps between two stages are ``[B, C, 1 + patches]``, the class token first; the representation has the patches
    alone, ``[B, C, H / 16, W / 16]``.

    Args:
        heads: of the attention; the published networks have 3 (Tiny, 192 channels) and 6 (Small, 384).
        width: multiplies the channels of a head, 64 in the published networks.
    """

    has_published_weights = True
    stride = PATCH

    def __init__(self, heads: int, width: float) -> None:
        super().__init__()
        (each,) = scaled([_HEAD], width)
        channels = heads * each
        self.stage_channels = [channels] * _STAGES
        self.cls_token = nn.Parameter(torch.zeros(1, 1, channels))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + _GRID**2, channels))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, channels, PATCH, stride=PATCH)})
        self.blocks = nn.ModuleList(_Block(channels, heads) for _ in range(_DEPTH))
        self.norm = nn.LayerNorm(channels, eps=_EPS)
        for layer in self.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.normal_(self.cls_token, std=1e-6)

    def stage(self, number: int, maps: Tensor, kept: list[Any]) -> Tensor:
        """See `Trunk.stage`; keeps how many patches there are each way."""
        tokens = maps.transpose(1, 2) if number else self._embed(maps, kept)
        each = _DEPTH // _STAGES
        for block in self.blocks[number * each : (number + 1) * each]:
            tokens = block(tokens)
        if number < _STAGES - 1:
            return tokens.transpose(1, 2)
        # Without the class token, back in the grid of the patches.
        return self.norm(tokens[:, 1:]).transpose(1, 2).unflatten(2, kept.pop())

    def stage_modules(self, number: int) -> list[nn.Module]:
        """See `Trunk.stage_modules`."""
        each = _DEPTH // _STAGES
        last = [self.norm] if number == _STAGES - 1 else []
        return [*self.blocks[number * each : (number + 1) * each], *last]

    def load_published(self, state: Mapping[str, Tensor]) -> None:
        """See `Trunk.load_published`; position embeddings of another image size are resampled."""
        named = timm_names(state)
        if "class_token" in state:  # torchvision's, made for pixels that are normalised in another way
            named |= _for_our_pixels(named)
        if "pos_embed" in named:
            named["pos_embed"] = _resampled(named["pos_embed"], (_GRID, _GRID))
        self.load_state_dict(named)

    def _embed(self, images: Tensor, kept: list[Any]) -> Tensor:
        """The tokens of images from 0 to 1, positions added."""
        check_images(images, PATCH)
        patches = self.patch_embed["proj"]((images - _CENTRE) / _SPREAD)
        kept.append(patches.shape[2:])
        tokens = torch.cat([self.cls_token.expand(len(images), -1, -1), patches.flatten(2).transpose(1, 2)], dim=1)
        return tokens + _resampled(self.pos_embed, kept[-1])


class _Block(nn.Module):
    """Attention among all tokens, then two dense layers on each, both added to what was there."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(channels, eps=_EPS), nn.LayerNorm(channels, eps=_EPS)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(channels, 3 * channels), "proj": nn.Linear(channels, channels)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(channels, 4 * channels), "fc2": nn.Linear(4 * channels, channels)})

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens ``[B, N, C]``."""
        parts = self.attn["qkv"](self.norm1(tokens)).unflatten(2, (3, self.heads, -1))  # [B, N, 3, heads, C / heads]
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(query, key, value)
        tokens = tokens + self.attn["proj"](seen.transpose(1, 2).flatten(2))
        return tokens + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(tokens))))


def _for_our_pixels(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same patch embedding, where pixels were normalised with ImageNet's mean and spread; exact without padding."""
    weight, bias = state["patch_embed.proj.weight"], state["patch_embed.proj.bias"]
    mean, std = (torch.tensor(values).view(3, 1, 1).to(weight) for values in (IMAGENET_MEAN, IMAGENET_STD))
    shift = (weight * ((_CENTRE - mean) / std)).sum(dim=(1, 2, 3))
    return {"patch_embed.proj.weight": weight * (_SPREAD / std), "patch_embed.proj.bias": bias + shift}


def _resampled(positions: Tensor, grid: tuple[int, int]) -> Tensor:
    """Position embeddings ``[1, 1 + patches, C]`` of a square of patches for another grid, bicubically as timm does."""
    side = round((positions.shape[1] - 1) ** 0.5)
    if (side, side) == tuple(grid):
        return positions
    patches = positions[:, 1:].transpose(1, 2).unflatten(2, (side, side))
    fitted = F.interpolate(patches, grid, mode="bicubic", align_corners=False, antialias=True)
    return torch.cat([positions[:, :1], fitted.flatten(2).transpose(1, 2)], dim=1)
