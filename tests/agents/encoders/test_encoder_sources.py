"""Every encoder beside the network of its source: the layers that a row meets, in their order, with widths and norms.

The right-hand sides were written down from the sources, as MT10's actor (39 inputs, 10 tasks, 8 outputs), and not from
this library. ``50*`` are the layers of six experts side by side (CARE), of modules, parameter sets or heads.

mtrl is github.com/facebookresearch/mtrl at e282c3f (2021-12-30), metaworld-algorithms github.com/rainx0r/
metaworld-algorithms at 30c9991 (2026-05-20).
"""

import re

import pytest
import torch
from torch import nn

from mtrl_imgrad.agents import MTSAC
from mtrl_imgrad.agents.encoders import NetworkSpec, list_encoders, make_encoder
from mtrl_imgrad.envs import list_tasks, make_vec_env

TASKS = tuple(list_tasks("MT10"))
H = 400
CARE = (
    "384-100 relu 100-50 relu "  # mtrl, components/task_encoder.py: projection of the pretrained embedding, 2 x 50, 50
    "50-50 relu 50-50 relu 50-50 "  # its trunk: build_mlp with num_layers 2, hidden_dim 50, output_dim 50
    "50-50 relu 50-50 relu 50-6 "  # mtrl, components/moe_layer.py, AttentionBasedExperts: the same, a weight an expert
    "39-50* relu 50-50* "  # mtrl, components/moe_layer.py, FeedForward with num_layers 2 (metaworld-algorithms: three)
    "100-400 relu 400-400 relu 400-400 relu 400-8"  # mtrl, config/agent/components/metaworld_actor.yaml
)
SOURCES = {
    # Yu et al. 2019; metaworld-algorithms, config/nn.py: width 400, depth 3
    "one_hot": "49-400 relu 400-400 relu 400-400 relu 400-8",
    # metaworld-algorithms, nn/multi_head.py: the one-hot goes through the trunk, then a dense layer a task
    "multi_head": "49-400 relu 400-400 relu 400-400 relu 400-8*",
    # mtrl, metaworld_multitask.yaml: embedding_dim 50. Ours (docs/encoders.md): without its three layers behind it
    "embedding": "89-400 relu 400-400 relu 400-400 relu 400-8",
    # Perez et al. 2018: one linear layer for a scale and a shift a feature of each of three hidden layers of 400
    "film": "50-2400 39-400 relu 400-400 relu 400-400 relu 400-8",
    # mtrl's six experts, see CARE
    "attention": "39-50* relu 50-50* 50-400 relu 400-400 relu 400-400 relu 400-8",
    "care": CARE,
    # Yang et al. 2020, RchalYang/Soft-Module at e6d7c8a: meta_config/mt10/modular_2_2_2_256_reweight_rand.json
    # (hidden_shapes 400-400, num_gating_layers 2 of 256, 2 layers of 2 modules of 256), torchrl/networks/nets.py
    "soft_modularization": "39-400 relu 400-400 relu 400-256 relu 256-256 relu 256-4 4-256 relu 256-2 relu "
    "400-256* relu 256-256* relu 256-8",
    # Sun et al. 2022; metaworld-algorithms, nn/paco.py: all layers are composed
    "paco": "39-400* relu 400-400* relu 400-400* relu 400-8*",
    # Hendawy et al. 2024, AhmedMagdyHendawy/MOORE at 35fd925, moore/utils/networks_sac.py: n_features of which the last
    # is linear (activation "Linear"), orthogonal, tanh, a head a task; metaworld-algorithms, nn/moore.py likewise
    "moore": "39-400* relu 400-400* relu 400-400* 400-8*",
    # Nauman et al. 2025, naumix/BiggerRegularizedCategorical at 19701bf, jaxrl/networks.py: first layer, two blocks;
    # the embedding of 32 beside the state
    "residual": "71-400 norm relu 400-400 norm relu 400-400 norm 400-400 norm relu 400-400 norm 400-8",
}
COPIES = {"multi_head": {10}, "attention": {6}, "care": {6}, "soft_modularization": {2}, "paco": {5}, "moore": {4, 10}}
"""How many layers stand side by side: heads (10 tasks), experts, modules, parameter sets."""


def layers_met(encoder):
    """What a batch goes through, in its order, and how many copies of a layer stand side by side."""
    met, copies = [], set()

    def note(module, _, __):
        if isinstance(module, nn.LayerNorm):
            met.append("norm")
        elif isinstance(module, nn.ReLU):
            met.append("relu")
        elif getattr(module, "bias", None) is not None:
            *many, outputs, inputs = module.weight.shape
            met.append(f"{inputs}-{outputs}" + "*" * len(many))
            copies.update(many)

    for module in encoder.modules():
        if not list(module.children()):
            module.register_forward_hook(note)
    encoder(torch.zeros(10, 39), torch.eye(10))
    return " ".join(met), copies


def build(name, **options):
    net_arch = (H, H) if name == "soft_modularization" else (H, H, H)
    return make_encoder(name, NetworkSpec(39, 8, TASKS, True, net_arch, **options))


@pytest.mark.parametrize("name", list_encoders())
def test_layers_are_those_of_the_source(name):
    met, copies = layers_met(build(name))
    assert met == SOURCES[name]
    assert copies == COPIES.get(name, set())


@pytest.mark.parametrize("name", list_encoders())
def test_layer_norm_stands_before_the_activation_of_what_sees_the_state(name):
    """As in DroQ and TOPPO; never in what sees the task alone, in a layer without activation, or in the routing."""
    expected = SOURCES[name]
    if name != "residual":  # which is normalized as it is
        first = "39-50" if name == "care" else "39-" if "39-" in expected else ""
        at = expected.index(first)
        task, state = expected[:at], expected[at:]
        if name == "soft_modularization":
            state = "39-400 norm relu " + state[len("39-400 relu ") :]
            state = re.sub(r"(\d-256\*) relu", r"\1 norm relu", state)
        else:
            state = re.sub(r"(\d\*?) relu", r"\1 norm relu", state)
        expected = task + state
    assert layers_met(build(name, layer_norm=True))[0] == expected


def test_cares_context_of_learned_vectors_starts_with_the_activation():
    """mtrl, components/task_encoder.py: embedding, ReLU, then the trunk."""
    encoder = make_encoder("care", NetworkSpec(39, 8, TASKS, True, (H,)), metadata="learned")
    assert layers_met(encoder)[0].startswith("relu 50-50 relu 50-50 relu 50-50 50-50 relu 50-50 relu 50-6 39-50*")


def test_a_care_of_two_layers_is_refused_with_the_reason():
    """Agents saved when context and attention networks had two linear layers."""
    kwargs = {"net_arch": [8], "encoder": "care", "encoder_kwargs": {"metadata": "learned"}}
    agent = MTSAC("MlpPolicy", make_vec_env("toy-reach", seed=0), policy_kwargs=kwargs, batch_size=8, device="cpu")
    state = agent.policy.state_dict()
    for name in list(state):
        if re.search(r"(context\.[56]|attention\.4)\.", name):
            del state[name]
    with pytest.raises(RuntimeError, match="actor.encoder.* had two linear layers.*trained anew"):
        agent.policy.load_state_dict(state)
