"""Compiled functions and bfloat16 products: the numbers of the recorded ones, to rounding; what cannot be compiled."""

import pytest
import torch

from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.gradients import Execution, tracing
from mtrl_imgrad.gradients.compilation import missing_compiler
from mtrl_imgrad.gradients.tracing import Traced

needs_compiler = pytest.mark.skipif(missing_compiler(torch.device("cpu")) is not None, reason="no C++ compiler")
SHAPES = {"w": (6, 5), "v": (5, 3)}


def _jacobian(parameters, x):
    def loss(parameters, row):
        hidden = torch.nn.functional.layer_norm((row @ parameters["w"]).relu(), (5,))
        return (hidden @ parameters["v"]).square().mean()

    return torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)


def _inputs():
    generator = torch.Generator().manual_seed(0)

    parameters = {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
    return parameters, torch.randn(4, 8, 6, generator=generator)


@needs_compiler
@pytest.mark.compiled
def test_compiled_gradients_are_the_recorded_ones_to_rounding():
    inputs = _inputs()
    recorded, compiled = Traced(_jacobian)(*inputs), Traced(_jacobian, Execution(compile=True))(*inputs)
    for name, value in recorded.items():
        torch.testing.assert_close(compiled[name], value, rtol=1e-4, atol=1e-5)


def test_bfloat16_rounds_the_factors_and_the_result_of_a_product():
    a, b = torch.randn(8, 16), torch.randn(16, 4)
    found = Traced(torch.mm, Execution(precision="bf16"))(a, b)
    assert found.dtype == torch.float32
    assert torch.equal(found, (a.bfloat16() @ b.bfloat16()).float())
    assert not torch.equal(found, a @ b)


def test_bfloat16_gradients_are_those_of_float32_to_bfloat16_s_rounding():
    inputs = _inputs()
    exact, rounded = Traced(_jacobian)(*inputs), Traced(_jacobian, Execution(precision="bf16"))(*inputs)
    for name, value in exact.items():
        assert rounded[name].dtype == torch.float32
        assert (rounded[name] - value).norm() < 0.05 * value.norm()


def _refuse(graph, inputs):
    raise RuntimeError("no such operation")


def test_what_cannot_be_compiled_is_an_error_where_compiling_is_required(monkeypatch):
    monkeypatch.setattr(tracing, "compile_graph", _refuse)
    with pytest.raises(ArgumentError, match=r"_jacobian cannot be compiled.*no such operation.*compile=False"):
        Traced(_jacobian, Execution(compile=True))(*_inputs())


def test_what_cannot_be_compiled_is_else_replayed_with_a_warning(monkeypatch):
    monkeypatch.setattr(tracing, "compile_graph", _refuse)
    execution, inputs = Execution(compile=True, required=False), _inputs()
    traced = Traced(_jacobian, execution)
    with pytest.warns(UserWarning, match=r"cannot be compiled.*replayed"):
        found = traced(*inputs)
    assert not execution.compile
    for name, value in Traced(_jacobian)(*inputs).items():
        assert torch.equal(found[name], value)
