"""Encoders against their papers' formulas, row by row and module by module, and their parameter counts."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn import functional

from mtrl_imgrad.agents.encoders import NetworkSpec, make_encoder, metadata
from mtrl_imgrad.agents.encoders.metadata import sentence_embeddings
from mtrl_imgrad.agents.encoders.moore import orthonormal
from mtrl_imgrad.agents.encoders.task_descriptions import TASK_DESCRIPTIONS
from mtrl_imgrad.envs import list_tasks
from mtrl_imgrad.envs.task_sets import METAWORLD_TASKS
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.gradients import split_parameters

FEATURES, OUTPUTS, TASKS = 4, 3, ("a", "b", "c")
relu = torch.relu


@pytest.fixture
def rows():
    generator = torch.Generator().manual_seed(3)
    return torch.randn(6, FEATURES, generator=generator, dtype=torch.float64), [0, 2, 1, 1, 0, 2]


def _encoder(name, net_arch=(7, 5), **kwargs):
    torch.manual_seed(4)
    return make_encoder(name, NetworkSpec(FEATURES, OUTPUTS, TASKS, True, net_arch), **kwargs).double()


def _check(encoder, rows, by_hand):
    """``by_hand(state, k)`` for each row beside the encoder on all of them."""
    inputs, ids = rows
    found = encoder(inputs, functional.one_hot(torch.tensor(ids), len(TASKS)).double())
    expected = torch.stack([by_hand(state, k) for state, k in zip(inputs, ids, strict=True)])
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_film(rows):
    encoder = _encoder("film", embedding_dim=2)

    def by_hand(x, k):
        modulation = encoder.modulation(encoder.embedding.weight[k])
        gamma, beta = modulation[:12], modulation[12:]
        x = relu((1 + gamma[:7]) * encoder.hidden[0](x) + beta[:7])
        x = relu((1 + gamma[7:]) * encoder.hidden[1](x) + beta[7:])
        return encoder.output(x)

    _check(encoder, rows, by_hand)


def _expert(layers, index, x):
    """Expert ``index`` of two layers, the last one linear."""
    for i, layer in enumerate((layers[0], layers[2])):
        x = layer.weight[index] @ x + layer.bias[index]
        x = relu(x) if i == 0 else x
    return x


def test_attention(rows):
    encoder = _encoder("attention", num_experts=3, encoder_width=5)

    def by_hand(x, k):
        encodings = [_expert(encoder.encoders, i, x) for i in range(3)]
        scores = torch.stack([z @ encoder.query.weight[k] / 5**0.5 for z in encodings])
        weights = scores.exp() / scores.exp().sum()
        return encoder.trunk(sum(w * z for w, z in zip(weights, encodings, strict=True)))

    _check(encoder, rows, by_hand)


@pytest.mark.parametrize("learned", [False, True])
def test_care(rows, learned):
    table = {"c": [0.0, 1.0], "a": [2.0, 0.5], "b": [-1.0, 1.0]}
    encoder = _encoder("care", num_experts=3, encoder_width=5, context_dim=6, metadata="learned" if learned else table)

    def by_hand(x, k):
        known = encoder.vectors.weight[k] if learned else torch.tensor(table[TASKS[k]]).double()
        context = encoder.context(known)
        weights = encoder.attention(context).softmax(0)
        encoding = sum(weights[i] * _expert(encoder.encoders, i, x) for i in range(3))
        return encoder.trunk(torch.cat([encoding, context]))

    _check(encoder, rows, by_hand)


def test_cares_attention_sends_no_gradient_to_the_context(rows):
    encoder = _encoder("care", metadata="learned", context_dim=6)
    with torch.no_grad():
        encoder.trunk[0].weight[:, -6:] = 0  # the trunk no longer looks at the context
    inputs, ids = rows
    encoder(inputs, functional.one_hot(torch.tensor(ids), 3).double()).sum().backward()
    assert not encoder.vectors.weight.grad.any()
    assert encoder.attention[0].weight.grad.any()


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_soft_modularization(rows, layers):
    """Equations 2 to 4 of the paper with sums over modules; the two ends as in the authors' code."""
    n = 3
    options = {"num_modules": n, "num_module_layers": layers, "module_width": 5, "routing_width": 6}
    encoder = _encoder("soft_modularization", **options)
    modules, routing = list(encoder.modules_in_layers.values()), encoder.routing
    linear = {name: list(part.values()) for name, part in (("d", routing.logits), ("u", routing.conditions))}

    def by_hand(x, k):
        state = encoder.state(x)
        joint = routing.trunk(relu(state * encoder.task.weight[k]))
        probabilities, seen = [], joint
        for depth in range(layers - 1):
            p = linear["d"][depth](relu(seen)).view(n, n).softmax(1)
            seen = linear["u"][depth](p.flatten()) * joint
            probabilities.append(p)
        last = linear["d"][-1](relu(seen)).softmax(0)
        g = [relu(state)] * n
        for depth in range(layers):
            weight, bias = modules[depth][0].weight, modules[depth][0].bias
            out = [relu(weight[j] @ g[j] + bias[j]) for j in range(n)]
            if depth < layers - 1:
                g = [sum(probabilities[depth][i, j] * out[j] for j in range(n)) for i in range(n)]
        return encoder.output(sum(last[j] * out[j] for j in range(n)))

    _check(encoder, rows, by_hand)


def test_paco_composes_every_layer(rows):
    encoder = _encoder("paco", num_sets=4)
    torch.testing.assert_close(encoder.composition.weight.norm(dim=1), torch.ones(3).double(), rtol=1e-6, atol=0)

    def by_hand(x, k):
        for i, layer in enumerate(encoder.layers):
            weight = sum(w * phi for w, phi in zip(encoder.composition.weight[k], layer.weight, strict=True))
            bias = sum(w * phi for w, phi in zip(encoder.composition.weight[k], layer.bias, strict=True))
            x = weight @ x + bias
            x = relu(x) if i < 2 else x
        return x

    _check(encoder, rows, by_hand)


def test_moore(rows):
    encoder = _encoder("moore", num_experts=3)

    def by_hand(x, k):
        encodings = torch.stack([_expert(encoder.experts, i, x) for i in range(3)])
        q, r = torch.linalg.qr(encodings.T)  # Gram-Schmidt up to the signs of R's diagonal
        basis = (q * r.diagonal().sign()).T
        return encoder.heads.weight[k] @ torch.tanh(encoder.weights.weight[k] @ basis) + encoder.heads.bias[k]

    _check(encoder, rows, by_hand)


@pytest.mark.parametrize("spread", [1.0, 1e-3])
def test_gram_schmidt_stays_orthonormal_in_single_precision(spread):
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(1, 20, 400, generator=generator) + spread * torch.randn(6, 20, 400, generator=generator)
    basis = orthonormal(vectors)
    gramian = torch.einsum("inf,jnf->nij", basis, basis)
    torch.testing.assert_close(gramian, torch.eye(6).expand(20, 6, 6), rtol=0, atol=1e-5 / spread)
    zero = torch.zeros(2, 3, 5, requires_grad=True)
    orthonormal(zero).sum().backward()
    assert torch.isfinite(zero.grad).all()


def test_residual(rows):
    encoder = _encoder("residual", net_arch=(6, 6, 5), embedding_dim=2)
    stem, norm, _, first, second, output = encoder.trunk

    def block(x, branch):
        hidden = relu(functional.layer_norm(branch[0](x), (branch[0].out_features,)))
        return functional.layer_norm(branch[3](hidden), (branch[3].out_features,))

    def by_hand(x, k):
        task = encoder.embedding.weight[k] / encoder.embedding.weight[k].norm()
        x = relu(norm(stem(torch.cat([x, task]))))
        x = x + block(x, first.branch)
        x = second.shortcut.weight @ x + block(x, second.branch)
        return output(x)

    _check(encoder, rows, by_hand)


# ------------------------------------------------------------------ sizes


def _linear(*widths):
    return sum((a + 1) * b for a, b in pairwise(widths))


S, A, K, H = 39, 8, 10, 400
"""MT10's actor: state, outputs (mean and log standard deviation), tasks, width."""


@pytest.mark.parametrize(
    ("name", "net_arch", "shared", "own"),
    [
        ("one_hot", (H, H, H), _linear(S + K, H, H, H, A), 0),
        ("multi_head", (H, H, H), _linear(S + K, H, H, H), _linear(H, A)),
        ("embedding", (H, H, H), _linear(S + 50, H, H, H, A), 50),
        ("film", (H, H, H), _linear(S, H, H, H, A) + _linear(50, 6 * H), 50),
        ("attention", (H, H, H), 6 * _linear(S, 50, 50) + _linear(50, H, H, H, A), 50),
        (
            "care",
            (H, H, H),
            _linear(384, 100, 50, 50, 50, 50)
            + _linear(50, 50, 50, 6)
            + 6 * _linear(S, 50, 50)
            + _linear(100, H, H, H, A),
            0,
        ),
        (
            "soft_modularization",  # the authors' configuration: state network of two layers
            (H, H),
            _linear(S, H, H)
            + 2 * _linear(H, 256)
            + 2 * _linear(256, 256)
            + _linear(H, 256, 256)
            + _linear(256, 4)
            + _linear(4, 256)
            + _linear(256, 2)
            + _linear(256, A),
            H,
        ),
        ("paco", (H, H, H), 5 * _linear(S, H, H, H, A), 5),
        ("moore", (H, H, H), 4 * _linear(S, H, H, H), 4 + _linear(H, A)),
        ("residual", (H, H, H), _linear(S + 32, H) + 2 * H + 4 * (_linear(H, H) + 2 * H) + _linear(H, A), 32),
        (
            "residual",
            (4096, 4096, 4096),
            _linear(S + 32, 4096) + 2 * 4096 + 4 * (_linear(4096, 4096) + 2 * 4096) + _linear(4096, A),
            32,
        ),
    ],
)
def test_parameter_counts(name, net_arch, shared, own):
    """Counted from the architecture: trainable parameters, and of them what each of the ten tasks owns."""
    device = "meta" if max(net_arch) > 1000 else "cpu"
    with torch.device(device):
        parameters = split_parameters(make_encoder(name, NetworkSpec(S, A, tuple(list_tasks("MT10")), True, net_arch)))
    assert sum(p.numel() for p in parameters.shared.values()) == shared
    assert sum(p.numel() for p in parameters.task_specific.values()) == K * own


# ------------------------------------------------------------------ sentences


def test_the_committed_embeddings_are_of_todays_sentences():
    assert list(TASK_DESCRIPTIONS) == list(METAWORLD_TASKS)
    with np.load(metadata.__file__.replace("metadata.py", "task_embeddings.npz")) as saved:
        assert saved["sentences"].tolist() == list(TASK_DESCRIPTIONS.values())
        lengths = np.linalg.norm(saved["embeddings"].astype(float), axis=1)
    np.testing.assert_allclose(lengths, 1, atol=1e-3)


def test_sentences_of_like_tasks_are_alike():
    """What the embeddings are for: a task's nearest neighbour is its sibling."""
    vectors = functional.normalize(sentence_embeddings(METAWORLD_TASKS))
    cosines = vectors @ vectors.T - 2 * torch.eye(50)
    pairs = ["reach:reach-wall", "window-open:window-close", "coffee-push:coffee-pull", "drawer-close:drawer-open"]
    for task, sibling in (pair.split(":") for pair in pairs):
        nearest = METAWORLD_TASKS[int(cosines[METAWORLD_TASKS.index(f"{task}-v3")].argmax())]
        assert nearest == f"{sibling}-v3"
    some = sentence_embeddings(["window-close-v3", "reach-v3"])
    torch.testing.assert_close(some.square().mean(1), torch.ones(2), rtol=1e-2, atol=0)
    torch.testing.assert_close(functional.normalize(some)[1], vectors[METAWORLD_TASKS.index("reach-v3")])


def test_sentences_know_metaworlds_tasks_only():
    with pytest.raises(ArgumentError, match="not my-task"):
        sentence_embeddings(["reach-v3", "my-task"])
