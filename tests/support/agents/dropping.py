"""Plain networks that drop the units that masks say, and an encoder of a user's own."""

import contextlib

import torch
from torch import nn

from mtrl_imgrad.agents.encoders import Dropout, Encoder

RATE = 0.3


@contextlib.contextmanager
def dropping(network, masks, task, rate):
    """The plain network, in which one task's dropped units are set to zero and the others scaled, by hooks."""
    layers = {f"{name}.mask": layer for name, layer in network.named_modules() if isinstance(layer, Dropout)}

    def hook(kept):
        return lambda _layer, inputs, _output: torch.where(kept, inputs[0] / (1 - rate), 0.0)

    assert set(masks) <= set(layers)
    handles = [layers[name].register_forward_hook(hook(mask[task] > 0)) for name, mask in masks.items()]
    try:
        yield network
    finally:
        for handle in handles:
            handle.remove()


class OwnEncoder(Encoder):
    name = "own"
    width = 6

    def __init__(self, spec):
        super().__init__(spec)
        self.first = nn.Linear(spec.in_features, 6)
        self.drop = Dropout(self.width, 0.5)
        self.last = nn.Linear(6, spec.out_features)

    def forward(self, inputs, task):
        return self.last(self.drop(self.first(inputs)))
