"""Names of a ViT's parameters: torchvision's as timm's."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

_TORCHVISION = (
    (r"^class_token$", "cls_token"),
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^encoder\.pos_embedding$", "pos_embed"),
    (r"^encoder\.ln\.", "norm."),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.self_attention\.in_proj_(weight|bias)$", r".attn.qkv.\1"),
    (r"\.self_attention\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.(0|linear_1)\.", ".mlp.fc1."),  # linear_1 and linear_2 before torchvision 0.13
    (r"\.mlp\.(3|linear_2)\.", ".mlp.fc2."),
)


def timm_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dictionary of timm or torchvision, in timm's names, without the layers after the last norm."""
    renamed = {}
    for name, value in state.items():
        if name.startswith(("head.", "heads.", "head_dist.")):
            continue
        for pattern, replacement in _TORCHVISION:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed
