"""Python of the pages: what it asks for exists, and a short form of it that runs in a moment."""

from __future__ import annotations

import ast
import importlib
import inspect
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

TASKS = "toy-reach"
_AGENTS = {
    "MTSAC": {"learning_starts": 20, "batch_size": 12, "buffer_size": 1000},
    "MTTD3": {"learning_starts": 20, "batch_size": 12, "buffer_size": 1000},
    "MTPPO": {"n_steps": 12, "batch_size": 24},
    "SAC": {"learning_starts": 20, "batch_size": 12, "buffer_size": 1000},
}
_OVERRIDES: dict[str, dict[str, Any]] = {
    "learn": {"progress_bar": False},
    "evaluate_success": {"n_episodes": 1},
    "MTEvalCallback": {"eval_freq": 50, "n_eval_episodes": 1},
    "make_scenes": {"counts": {"train": 2, "val": 1}, "height": 32, "width": 64, "progress_bar": False},
    "DataLoader": {"num_workers": 0},
}
_DROPPED = ("backend", "vector_strategy", "worker_restarts")
"""Arguments of `make_vec_env` that `toy-reach` refuses."""


class Net(nn.Module):
    """A trunk with two heads, as the pages' readers have one."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Linear(3, 4)
        self.heads = nn.ModuleList([nn.Linear(4, 1), nn.Linear(4, 1)])

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [head(self.trunk(x).tanh())[:, 0] for head in self.heads]


def task_losses(predictions: list[torch.Tensor], targets: torch.Tensor) -> list[torch.Tensor]:
    """The mean squared error of each task."""
    return [(one - targets[:, task]).square().mean() for task, one in enumerate(predictions)]


class Losses(list):
    """Losses of a batch as a list, or as a function of one: pages say both."""

    def __init__(self, make: Any) -> None:
        super().__init__(make())
        self.make = make

    def __call__(self, *batch: object) -> list[torch.Tensor]:
        return self.make()


def reader_s_names(code: str) -> dict[str, Any]:
    """What a page's reader has at hand: a trunk with two heads, the library's names, and an agent if it is used."""
    import gymnasium as gym
    import torchjd

    import mtrl_imgrad
    from mtrl_imgrad.combiners import SDMGrad

    trunk = nn.Linear(3, 4)
    heads = nn.ModuleList([nn.Linear(4, 1), nn.Linear(4, 1)])

    def make() -> list[torch.Tensor]:
        features = trunk(torch.ones(5, 3)).tanh()
        return [(head(features) - number).square().mean() for number, head in enumerate(heads)]

    losses = Losses(make)
    jacobian = torch.tensor([[1.0, 0, 2], [0, 3, -1]])
    names: dict[str, Any] = {
        "torch": torch, "gym": gym, "torchjd": torchjd, "SDMGrad": SDMGrad, "K": 2, "trunk": trunk, "heads": heads,
        "losses": losses, "loss_a": losses[0], "loss_b": losses[1], "batch": [0, 1], "micro_batches": [0, 1],
        "halves_of": lambda rows: (rows, rows), "loss": lambda task, half: make()[task],
        "optimizer": torch.optim.SGD([*trunk.parameters(), *heads.parameters()], lr=0.1),
        "jacobian": jacobian, "gramian": jacobian @ jacobian.T,
    }  # fmt: skip
    for name in ("MTSAC", "MTPPO", "MTTD3", "make_vec_env", "make_combiner", "evaluate_success"):
        names[name] = getattr(mtrl_imgrad, name)
    names["combiner"] = mtrl_imgrad.make_combiner("imgrad")
    used = {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)}
    if "net" in used:
        net, data = Net(), TensorDataset(torch.ones(6, 3), torch.ones(6, 2))
        names |= {"net": net, "loader": DataLoader(data, batch_size=3), "task_losses": task_losses}
        names["optimizer"] = torch.optim.SGD(net.parameters(), lr=0.1)
    if used & {"env", "agent"}:
        names["env"] = mtrl_imgrad.make_vec_env(TASKS, seed=0)
    if "agent" in used:
        settings = {**_AGENTS["MTSAC"], "policy_kwargs": {"net_arch": [8]}, "device": "cpu", "trace": False}
        names["agent"] = mtrl_imgrad.MTSAC("MlpPolicy", names["env"], **settings)
    return names


def check_names(code: str) -> None:
    """Fail where what is imported does not exist, or a call has an argument that its function does not take."""
    import mtrl_imgrad

    known: dict[str, Any] = {name: getattr(mtrl_imgrad, name) for name in mtrl_imgrad.__all__}
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and _is_installed(node.module):
            module = importlib.import_module(node.module)
            known |= {alias.asname or alias.name: getattr(module, alias.name) for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in known:
            _check_call(node, known[node.func.id])


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module.partition(".")[0]) is not None  # a file of the page itself is not


def _check_call(call: ast.Call, function: Any) -> None:
    parameters = inspect.signature(function).parameters
    if any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        return
    wrong = {word.arg for word in call.keywords if word.arg} - set(parameters)
    assert not wrong, f"{ast.unparse(call.func)} takes no {', '.join(sorted(wrong))}"


def shortened(code: str) -> str:
    """The same on small networks, for a few steps, on `toy-reach` in place of Meta-World."""
    return ast.unparse(ast.fix_missing_locations(_Shorten().visit(ast.parse(code))))


class _Shorten(ast.NodeTransformer):
    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        if name == "make_vec_env" and isinstance(node.args[0], ast.Constant | ast.List):
            node.args[0] = ast.Constant(TASKS)
            node.keywords = [word for word in node.keywords if word.arg not in _DROPPED]
        if name == "learn":
            node.args = []
            node.keywords = [word for word in node.keywords if word.arg != "total_timesteps"]
            _override(node, {"total_timesteps": 60})
        if name in _AGENTS:
            _override(node, {**_AGENTS[name], "device": "cpu"})
            if name != "SAC":
                _override(node, {"trace": False})  # recording costs most of a short run
            if name != "SAC" and not any(word.arg == "policy_kwargs" for word in node.keywords):
                _override(node, {"policy_kwargs": {"net_arch": [8]}})
        _override(node, _OVERRIDES.get(name, {}))
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        is_width = isinstance(node.value, int) and node.value in (256, 400, 4096)
        return ast.copy_location(ast.Constant(8), node) if is_width else node


def _override(call: ast.Call, arguments: dict[str, Any]) -> None:
    call.keywords = [word for word in call.keywords if word.arg not in arguments]
    call.keywords += [ast.keyword(name, ast.parse(repr(value), mode="eval").body) for name, value in arguments.items()]
