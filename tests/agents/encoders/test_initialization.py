"""Initial values of networks, against those of the codes they are named after."""

import math

import pytest
import torch
from stable_baselines3 import PPO
from torch import nn

from mtrl_imgrad.agents import MTPPO, MTSAC
from mtrl_imgrad.agents.encoders import INITIALIZATIONS, Encoder, NetworkSpec, initialize, list_encoders, make_encoder
from mtrl_imgrad.agents.encoders.layers import TaskLinear
from mtrl_imgrad.envs import list_tasks, make_vec_env
from mtrl_imgrad.errors import ArgumentError, UnknownNameError

TASKS = tuple(list_tasks("MT10"))
WIDE = {"soft_modularization": (40, 40)}


def encoder(name, initialization, critic=False, **options):
    torch.manual_seed(1)
    made = make_encoder(name, NetworkSpec(39, 8, TASKS, True, WIDE.get(name, (400, 400)), **options))
    initialize(made, initialization, critic=critic)
    return made


def linear_layers(module):
    return [layer for layer in module.modules() if getattr(layer, "bias", None) is not None and layer.weight.ndim > 1]


def is_uniform(values, bound):
    """By its largest number and its second moment (40 000 numbers: within 1 per cent, seeded)."""
    assert values.abs().max() <= bound
    assert values.abs().max() > 0.95 * bound
    assert values.detach().square().mean().sqrt() == pytest.approx(bound / math.sqrt(3), rel=0.05)


@pytest.mark.parametrize(("critic", "output"), [(False, 1e-3), (True, 3e-3)])
def test_metaworld_algorithms(critic, output):
    """He-uniform hidden layers with zero biases (400 inputs: 0.12247), outputs uniform in the range of its side."""
    first, second, head = linear_layers(encoder("multi_head", "metaworld_algorithms", critic))
    is_uniform(first.weight, math.sqrt(6 / 49))
    is_uniform(second.weight, 0.122474488)
    assert not first.bias.any()
    assert not second.bias.any()
    assert isinstance(head, TaskLinear)
    is_uniform(head.weight, output)
    assert head.bias.abs().max() <= output
    assert head.bias.unique().numel() == 80  # of each task on its own


def test_mtrl():
    """Xavier-uniform and zero biases throughout, as torch draws them for a layer of the same shape."""
    for layer in linear_layers(encoder("care", "mtrl")):
        reference = torch.empty(layer.weight.shape[-2:])
        bound = nn.init.xavier_uniform_(reference).abs().max().item()
        assert layer.weight.abs().max().item() == pytest.approx(bound, rel=0.05)
        assert not layer.bias.any()


@pytest.mark.parametrize("kind", [MTPPO, MTSAC])
def test_orthogonal_is_sb3s_ppo(kind):
    """Singular values of every layer are those of SB3's networks of the same widths."""
    env = make_vec_env(["toy-reach/left"], seed=3, one_hot=False)
    kwargs = {"net_arch": [64, 64], "initialization": "orthogonal", "encoder": "one_hot"}
    ours = kind("MlpPolicy", env, policy_kwargs=kwargs, batch_size=8, seed=0, device="cpu").policy
    theirs = PPO("MlpPolicy", env, policy_kwargs={"net_arch": [64, 64]}, seed=0, device="cpu").policy
    actor = [*linear_layers(theirs.mlp_extractor.policy_net), theirs.action_net]
    critic = [*linear_layers(theirs.mlp_extractor.value_net), theirs.value_net]
    encoders = ours.critic.q_networks if kind is MTSAC else [ours.critic.encoder]
    for found, expected in [(ours.actor.encoder, actor), *((one, critic) for one in encoders)]:
        for mine, other in zip(linear_layers(found), expected, strict=True):
            values, reference = (torch.linalg.svdvals(layer.weight).detach() for layer in (mine, other))
            assert values.max() == pytest.approx(reference.max().item(), rel=1e-5)
            assert values.min() == pytest.approx(reference.min().item(), rel=1e-5)
            assert not mine.bias.any()


def test_experts_and_heads_are_each_orthogonal():
    made = encoder("moore", "orthogonal")
    for layer, gain in ((made.experts[0], 2.0), (made.heads, 1e-4)):
        for matrix in layer.weight:
            product = matrix @ matrix.T if len(matrix) < matrix.shape[1] else matrix.T @ matrix
            torch.testing.assert_close(product, gain * torch.eye(len(product)), atol=gain * 1e-4, rtol=0)
        assert not torch.equal(layer.weight[0], layer.weight[1])


@pytest.mark.parametrize("name", list_encoders())
def test_the_output_layer_of_every_encoder_is_found(name):
    *hidden, output = linear_layers(encoder(name, "metaworld_algorithms"))
    assert output.weight.shape[-2] == 8
    assert output.weight.abs().max() <= 1e-3
    assert all(layer.weight.abs().max() > 0.01 for layer in hidden)


@pytest.mark.parametrize("name", list_encoders())
def test_pytorchs_own_draws_nothing_and_the_rest_touches_linear_layers_only(name):
    plain, same, other = (encoder(name, which, layer_norm=True) for which in ("pytorch", "pytorch", "mtrl"))
    state = torch.get_rng_state()
    initialize(plain, "pytorch", critic=False)
    assert torch.equal(torch.get_rng_state(), state)
    linear = {id(parameter) for layer in linear_layers(other) for parameter in layer.parameters()}
    layers = [module for module in other.modules() if type(module).__name__.endswith("LayerNorm")]
    linear -= {id(parameter) for layer in layers for parameter in layer.parameters()}
    for one, two, three in zip(plain.parameters(), same.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)
        assert torch.equal(one, three) == (id(three) not in linear)


@pytest.mark.parametrize("kind", [MTPPO, MTSAC])
def test_it_is_kept_with_the_agent(kind, tmp_path):
    env = make_vec_env("toy-reach", seed=3)
    kwargs = {"net_arch": [8], "initialization": "metaworld_algorithms"}
    agent = kind("MlpPolicy", env, policy_kwargs=kwargs, batch_size=8, seed=0, device="cpu")
    agent.save(tmp_path / "model")
    agent.save_checkpoint(tmp_path / "checkpoint")
    agent.policy.save(tmp_path / "policy")
    assert kind.load(tmp_path / "model").policy.initialization == "metaworld_algorithms"
    assert kind.load_checkpoint(tmp_path / "checkpoint", env).policy.initialization == "metaworld_algorithms"
    assert type(agent.policy).load(tmp_path / "policy").initialization == "metaworld_algorithms"


class OutputsFirst(Encoder):
    """Its last layer is not that of the outputs."""

    name = "outputs_first"

    def __init__(self, spec):
        super().__init__(spec)
        self.output = nn.Linear(5, spec.out_features)
        self.hidden = nn.Linear(spec.in_features, 5)

    def forward(self, inputs, task):
        return self.output(self.hidden(inputs))


def test_what_cannot_be_initialized_is_named():
    with pytest.raises(UnknownNameError, match="Did you mean 'orthogonal'"):
        encoder("one_hot", "ortogonal")
    made = make_encoder(OutputsFirst, NetworkSpec(4, 2, TASKS, True, ()))
    with pytest.raises(ArgumentError, match="'outputs_first', whose last linear layer does not give its 2 outputs"):
        initialize(made, "orthogonal", critic=True)
    initialize(made, "pytorch", critic=True)
    env = make_vec_env("toy-reach", seed=3)
    for option in ("optimizer_kwargs", "ent_coef_optimizer_kwargs"):
        with pytest.raises(ArgumentError, match=f"{option} must be options of Adam"):
            MTSAC("MlpPolicy", env, policy_kwargs={option: {"epsilon": 1e-5}}, batch_size=8)
    assert INITIALIZATIONS[0] == "pytorch"
