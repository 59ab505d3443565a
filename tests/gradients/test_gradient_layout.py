"""A step moves every parameter by its own gradient: fused optimizers read gradients by their place in memory."""

import pytest
import torch
from torch import nn

from mtrl_imgrad.agents import MTPPO, MTSAC
from mtrl_imgrad.agents.encoders import list_encoders
from mtrl_imgrad.combiners import make_combiner
from mtrl_imgrad.envs import make_vec_env

AGENTS = {MTSAC: {"learning_starts": 16, "batch_size": 16}, MTPPO: {"n_steps": 4, "n_epochs": 1, "batch_size": 16}}


def entry_by_entry(optimizer):
    """A copy of an Adam that does not look at memory."""
    parameters = [nn.Parameter(p.detach().clone()) for group in optimizer.param_groups for p in group["params"]]
    group = optimizer.param_groups[0]
    return torch.optim.Adam(parameters, lr=group["lr"], eps=group["eps"], foreach=False, fused=False)


@pytest.mark.parametrize("kind", AGENTS)
@pytest.mark.parametrize("combiner", ["linear_scalarization", "imgrad"])  # one backward, and a Jacobian
@pytest.mark.parametrize("encoder", list_encoders())
def test_agents_step_each_entry_by_its_own_gradient(kind, encoder, combiner):
    kwargs = {"net_arch": [8, 6], "encoder": encoder, "optimizer_kwargs": {"eps": 1e-8}}
    agent = kind(
        "MlpPolicy",
        make_vec_env("toy-reach", seed=1),
        combiner=combiner,
        policy_kwargs=kwargs,
        trace=False,
        seed=0,
        device="cpu",
        **AGENTS[kind],
    )
    plain = {network: entry_by_entry(network.optimizer) for network in (agent.actor, agent.critic)}
    agent.learn(20 if kind is MTSAC else 16)  # one update
    assert agent._n_updates == 1
    for network, other in plain.items():
        for parameter, copied in zip(network.parameters(), other.param_groups[0]["params"], strict=True):
            copied.grad = None if parameter.grad is None else parameter.grad.clone()
        other.step()
        for parameter, copied in zip(network.parameters(), other.param_groups[0]["params"], strict=True):
            torch.testing.assert_close(parameter, copied, rtol=1e-5, atol=1e-7)


class Transposed(nn.Module):
    """Its gradient comes out of autograd transposed."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 3))

    def forward(self, inputs):
        return (inputs[:, :, None] * self.weight.mT).sum(1)


@pytest.mark.parametrize("combiner", ["linear_scalarization", "imgrad", "graddrop"])
def test_backward_hands_over_gradients_laid_out_as_their_parameters(combiner):
    torch.manual_seed(0)
    trunk, heads = Transposed(), nn.ModuleList(Transposed() for _ in range(2))
    for head in heads:
        head.weight = nn.Parameter(torch.randn(2, 5))
    inputs = torch.randn(7, 3)
    parameters = [*trunk.parameters(), *heads.parameters()]
    optimizer, other = torch.optim.Adam(parameters, fused=True), entry_by_entry(torch.optim.Adam(parameters, lr=1e-3))
    losses = [head(trunk(inputs)).square().mean() for head in heads]
    make_combiner(combiner).backward(losses, trunk.parameters(), heads.parameters())
    for parameter, copied in zip(parameters, other.param_groups[0]["params"], strict=True):
        assert parameter.grad.stride() == parameter.stride()
        copied.grad = parameter.grad.clone()
    optimizer.step()
    other.step()
    for parameter, copied in zip(parameters, other.param_groups[0]["params"], strict=True):
        torch.testing.assert_close(parameter, copied, rtol=1e-5, atol=1e-7)
