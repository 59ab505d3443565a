"""What every encoder must do: learn, keep tasks apart, give the gradients of plain autograd, work in an agent."""

import numpy as np
import pytest
import torch
from torch.func import functional_call
from torch.utils._pytree import tree_leaves

from mtrl_imgrad.agents import MTSAC
from mtrl_imgrad.agents.encoders import NetworkSpec, list_encoders, make_encoder
from mtrl_imgrad.combiners import make_combiner
from mtrl_imgrad.envs import list_tasks, make_vec_env
from mtrl_imgrad.errors import ArgumentError, UnknownNameError
from mtrl_imgrad.gradients import by_rows, combine_rows, over_tasks, split_parameters
from mtrl_imgrad.gradients.tracing import Traced

ROWS, FEATURES, OUTPUTS = 5, 4, 3
METADATA = {"toy-reach/right": [1.0, 0.0], "toy-reach/up": [0.0, 1.0], "toy-reach/left": [-1.0, 0.5]}
SMALL = {
    "soft_modularization": {"module_width": 8, "routing_width": 8},
    "care": {"encoder_width": 8, "context_dim": 8},
    "attention": {"encoder_width": 8},
}
"""Options that make tests fast where the default sizes are an encoder's own, not those of net_arch."""
VARIANTS = [(name, SMALL.get(name, {}), list(METADATA)) for name in list_encoders()] + [
    ("care", {**SMALL["care"], "metadata": METADATA}, list(METADATA)),
    ("care", {**SMALL["care"], "metadata": "learned"}, list_tasks("MT10")[:3]),
    ("care", {**SMALL["care"], "metadata": "sentences"}, list_tasks("MT10")[:3]),
    ("soft_modularization", {**SMALL["soft_modularization"], "num_modules": 3, "num_module_layers": 4}, ["a", "b"]),
    ("soft_modularization", {**SMALL["soft_modularization"], "num_module_layers": 1, "routing_depth": 1}, ["a", "b"]),
    ("attention", {**SMALL["attention"], "encoder_depth": 1}, ["a", "b"]),
    ("paco", {"num_sets": 1}, ["a", "b"]),
    ("moore", {"num_experts": 5}, ["a", "b"]),
    ("multi_head", {"task_input": False}, ["a", "b"]),
]
variants = pytest.mark.parametrize(
    ("name", "kwargs", "tasks"), VARIANTS, ids=[f"{i}-{name}" for i, (name, _, _) in enumerate(VARIANTS)]
)


def _encoder(name, kwargs=None, tasks=tuple(METADATA), layer_norm=False, sees_task=True, net_arch=(8, 8), seed=0):
    torch.manual_seed(seed)
    kwargs = SMALL.get(name, {}) if kwargs is None else kwargs
    spec = NetworkSpec(FEATURES, OUTPUTS, tuple(tasks), sees_task, tuple(net_arch), layer_norm=layer_norm)
    return make_encoder(name, spec, **kwargs).double()


def _rows(num_tasks, rows=ROWS):
    """Inputs and one-hots ``[K, rows, ...]``."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(num_tasks, rows, FEATURES, generator=generator, dtype=torch.float64)
    return inputs, torch.eye(num_tasks, dtype=torch.float64)[:, None].expand(-1, rows, -1)


def _loss(encoder):
    def loss(parameters, inputs, task, target):
        return (functional_call(encoder, parameters, (inputs, task)) - target).square().mean(), ()

    return loss


def _loop_over_tasks(encoder, inputs, task, targets):
    """K losses of K plain forwards, K plain backwards: name -> ``[K, *shape]``."""
    trainable = {name: p for name, p in encoder.named_parameters() if p.requires_grad}
    found = []
    for rows in zip(inputs, task, targets, strict=True):
        loss = (encoder(*rows[:2]) - rows[2]).square().mean()
        found.append(torch.autograd.grad(loss, list(trainable.values()), allow_unused=True, materialize_grads=True))
    return {name: torch.stack([row[i] for row in found]) for i, name in enumerate(trainable)}


@pytest.mark.parametrize("layer_norm", [False, True])
@variants
def test_gradients_by_rows_are_those_of_a_loop_over_tasks(name, kwargs, tasks, layer_norm):
    encoder = _encoder(name, kwargs, tasks, layer_norm)
    inputs, task = _rows(len(tasks))
    targets = torch.randn(len(tasks), ROWS, OUTPUTS, dtype=torch.float64)
    expected = _loop_over_tasks(encoder, inputs, task, targets)
    parameters = split_parameters(encoder)
    found = by_rows(_loss(encoder), parameters, inputs, task, targets)
    assert set(found.shared) | set(found.task_specific) == set(expected)
    for key, gradient in found.shared.items():
        torch.testing.assert_close(gradient, expected[key], rtol=1e-10, atol=1e-12)
    for key, gradient in found.task_specific.items():
        mine = expected[key][range(len(tasks)), range(len(tasks))]
        torch.testing.assert_close(gradient, mine, rtol=1e-10, atol=1e-12)
        assert expected[key].flatten(2).abs().sum(-1).count_nonzero() <= len(tasks), "another task's row moved"


class _After(torch.nn.Module):
    """An encoder behind a layer, whose gradient is that with respect to the encoder's inputs."""

    def __init__(self, encoder):
        super().__init__()
        self.layer, self.encoder = torch.nn.Linear(FEATURES, FEATURES, dtype=torch.float64), encoder

    def forward(self, inputs, task):
        return self.encoder(self.layer(inputs), task)


@pytest.mark.parametrize("name", list_encoders())
def test_recording_changes_no_number(name):
    """Recorded with some rows and replayed with others."""
    network = _After(_encoder(name, layer_norm=True))
    inputs, task = _rows(len(METADATA))

    def gradients(parameters, *rows):
        return by_rows(_loss(network), parameters, *rows)

    parameters, recorded = split_parameters(network), Traced(gradients)
    recorded(parameters, inputs, task, inputs[..., :OUTPUTS])
    others = (1 - 2 * inputs, task, inputs[..., -OUTPUTS:])
    found, expected = (function(parameters, *others) for function in (recorded, gradients))
    assert all(map(torch.equal, *map(tree_leaves, (found, expected))))


@pytest.mark.parametrize("combiner", ["linear_scalarization", "mgda", "cagrad", "imgrad", "nash_mtl"])
@pytest.mark.parametrize("name", list_encoders())
def test_combined_gradients_are_those_of_the_combined_jacobian(name, combiner):
    """Combiner on by_rows, beside the same combiner on the flat matrix of a loop over tasks."""
    encoder = _encoder(name)
    inputs, task = _rows(len(METADATA))
    targets = torch.randn(len(METADATA), ROWS, OUTPUTS, dtype=torch.float64)
    parameters = split_parameters(encoder)
    found = combine_rows(make_combiner(combiner), by_rows(_loss(encoder), parameters, inputs, task, targets))
    expected = _loop_over_tasks(encoder, inputs, task, targets)
    matrix = torch.cat([expected[key].flatten(1) for key in parameters.shared], dim=1)
    flat = torch.cat([found.gradients[key].flatten() for key in parameters.shared])
    torch.testing.assert_close(flat, make_combiner(combiner)(matrix).gradient, rtol=1e-5, atol=1e-7)


@variants
def test_rows_of_other_tasks_do_not_matter(name, kwargs, tasks):
    encoder = _encoder(name, kwargs, tasks)
    inputs, task = _rows(len(tasks))
    mixed = encoder(inputs.transpose(0, 1).flatten(0, 1), task.transpose(0, 1).flatten(0, 1))
    mixed = mixed.view(ROWS, len(tasks), OUTPUTS).transpose(0, 1)
    alone = torch.stack([encoder(*rows) for rows in zip(inputs, task, strict=True)])
    at_once = over_tasks(
        lambda parameters, *rows: functional_call(encoder, parameters, rows), split_parameters(encoder), inputs, task
    )
    torch.testing.assert_close(mixed, alone, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(at_once, alone, rtol=1e-10, atol=1e-12)
    same_inputs = torch.stack([encoder(inputs[0], one_hot) for one_hot in task])
    assert (same_inputs[1:] - same_inputs[0]).abs().amax((1, 2)).min() > 1e-8, "the task makes no difference"


@pytest.mark.parametrize("name", list_encoders())
@pytest.mark.portable
def test_learns_functions_that_differ_by_task(name, learning_seed, record_property):
    """Three unrelated linear maps: a network that does not know the task is left with most of the variance."""
    encoder = _encoder(name, net_arch=(32, 32), seed=learning_seed).float()
    inputs, task = (rows.float() for rows in _rows(3, rows=64))
    turns = torch.randn(3, FEATURES, OUTPUTS, generator=torch.Generator().manual_seed(2 + learning_seed))
    turns = torch.linalg.qr(turns).Q
    targets = inputs @ turns
    batch = [rows.flatten(0, 1) for rows in (inputs, task, targets)]
    optimizer = torch.optim.Adam([p for p in encoder.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(150):  # far fewer for most
        loss = (encoder(*batch[:2]) - batch[2]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        left = loss.item() / batch[2].var().item()
        if left < 0.03:
            break
    record_property("reached", left)
    assert left < 0.15  # below 0.03 with ten seeds of each encoder, without vector instructions


@pytest.mark.parametrize("name", [name for name in list_encoders() if name not in ("one_hot", "multi_head")])
def test_one_task_with_and_without_its_bit(name):
    """Where the bit is not an input of the trunk it says nothing of a single task: the answer is the same without."""
    seeing, blind = (_encoder(name, None, ["only"], sees_task=sees) for sees in (True, False))
    blind.load_state_dict(seeing.state_dict())
    inputs = _rows(1)[0][0]
    assert torch.equal(blind(inputs, inputs.new_zeros(ROWS, 0)), seeing(inputs, inputs.new_ones(ROWS, 1)))


@pytest.mark.parametrize("name", list_encoders())
def test_agent_of_one_task_and_of_a_gym_environment(name):
    policy = {"net_arch": [8, 8], "encoder": name, "encoder_kwargs": SMALL.get(name, {})}
    for env in (make_vec_env(["toy-reach/up"]), "Pendulum-v1"):
        agent = MTSAC(
            "MlpPolicy", env, policy_kwargs=policy, learning_starts=8, batch_size=8, trace=False, device="cpu"
        ).learn(9)
        assert agent._n_updates == 1
        assert all(torch.isfinite(p).all() for p in agent.policy.parameters())


@pytest.mark.parametrize("name", list_encoders())
def test_fifty_tasks(name):
    tasks = list_tasks("MT50")
    encoder = _encoder(name, None, tasks, net_arch=(32, 32))
    inputs, task = _rows(50, rows=2)
    found = by_rows(_loss(encoder), split_parameters(encoder), inputs, task, inputs[..., :OUTPUTS])
    assert found.losses.shape == (50,)
    assert all(len(gradient) == 50 and torch.isfinite(gradient).all() for gradient in found.shared.values())
    assert all(gradient.flatten(1).any(1).all() for gradient in found.task_specific.values()), "some parameters idle"


@pytest.mark.parametrize("name", ["care", "paco", "moore"])
def test_encoders_in_other_dtypes_and_activations(name):
    spec = NetworkSpec(FEATURES, OUTPUTS, ("a", "b"), True, (8,), torch.nn.SiLU, True)
    encoder = make_encoder(name, spec)
    assert not any(isinstance(layer, torch.nn.ReLU) for layer in encoder.modules())
    assert encoder(torch.randn(ROWS, FEATURES), torch.eye(2)[[0, 1, 0, 1, 1]]).dtype == torch.float32


# ------------------------------------------------------------------ metadata in an agent


def _care(metadata, tasks="toy-reach"):
    kwargs = {"net_arch": [8], "encoder": "care", "encoder_kwargs": {**SMALL["care"], "metadata": metadata}}
    return MTSAC(
        "MlpPolicy",
        make_vec_env(tasks, seed=0),
        policy_kwargs=kwargs,
        learning_starts=40,
        batch_size=16,
        trace=False,
        seed=0,
        device="cpu",
    )


def test_given_metadata_stay_as_they_are_and_are_saved(tmp_path):
    metadata = dict(zip(list_tasks("toy-reach"), np.eye(4, 6), strict=True))
    agent = _care(metadata).learn(80)
    table = agent.actor.encoder.table
    assert torch.equal(table, torch.eye(4, 6))
    assert "encoder.table" in split_parameters(agent.actor).frozen
    agent.save(tmp_path / "agent")
    env = make_vec_env("toy-reach", seed=3)
    loaded, observations = MTSAC.load(tmp_path / "agent", env=env), env.reset()
    expected = agent.predict(observations, deterministic=True)[0]
    assert np.array_equal(loaded.predict(observations, deterministic=True)[0], expected)
    moved = agent.actor.encoder.trunk[0].weight.detach().clone()
    agent.learn(80, reset_num_timesteps=False)
    assert torch.equal(agent.actor.encoder.table, torch.eye(4, 6))
    assert not torch.equal(agent.actor.encoder.trunk[0].weight, moved)


def test_metadata_by_default_are_sentences_where_all_tasks_have_one():
    assert not _encoder("care", None, list_tasks("MT10")).learned
    assert _encoder("care", None, [*list_tasks("MT10"), "my-task"]).learned


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ("sentence", "'sentences', 'learned' or a mapping"),
        ("sentences", "not toy-reach/right, toy-reach/up"),
        (METADATA, "lack the tasks toy-reach/down"),
        ({**METADATA, "toy-reach/down": [1.0]}, "one length.*toy-reach/down: 1"),
        ({**METADATA, "toy-reach/down": [1.0, float("nan")]}, "toy-reach/down must be a vector of finite"),
        ({**METADATA, "toy-reach/down": 1.0}, "toy-reach/down must be a vector"),
        ({**METADATA, "toy-reach/down": ["x", "y"]}, "toy-reach/down must be numbers"),
        (3, "metadata must be"),
    ],
)
def test_bad_metadata_name_the_task(metadata, says):
    with pytest.raises(ArgumentError, match=says):
        _care(metadata)


# ------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("name", "kwargs", "says"),
    [
        ("film", {"embedding_dim": 0}, "embedding_dim must be an integer >= 1, got 0"),
        ("embedding", {"embedding_dim": 2.0}, "embedding_dim must be an integer"),
        ("attention", {"num_experts": True}, "num_experts must be an integer"),
        ("care", {"context_dim": -1}, "context_dim must be"),
        ("soft_modularization", {"num_modules": 0}, "num_modules must be"),
        ("paco", {"num_sets": 0}, "num_sets must be"),
        ("moore", {"num_experts": 9}, "num_experts must be at most the last width of net_arch, 8"),
        ("residual", {"width": 3}, "takes no 'width'; accepted: embedding_dim"),
    ],
)
def test_bad_options_name_themselves(name, kwargs, says):
    with pytest.raises(ArgumentError, match=says):
        _encoder(name, kwargs)


@pytest.mark.parametrize("name", ["film", "soft_modularization", "moore", "residual", "multi_head"])
def test_encoders_without_hidden_layers_are_refused_by_name(name):
    with pytest.raises(ArgumentError, match=f"net_arch.*'{name}'"):
        _encoder(name, {}, net_arch=())


def test_an_unknown_encoder_is_named():
    with pytest.raises(UnknownNameError, match="'pacco'.*Did you mean 'paco'"):
        _encoder("pacco", {})
