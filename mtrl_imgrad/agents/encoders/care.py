"""CARE: a mixture of encoders, weighted by task metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mtrl_imgrad.agents.encoders.base import Encoder, NetworkSpec
from mtrl_imgrad.agents.encoders.experts import expert_mlp, mix
from mtrl_imgrad.agents.encoders.layers import TaskEmbedding, mlp, rows_of_table
from mtrl_imgrad.agents.encoders.metadata import metadata_table
from mtrl_imgrad.validation import Count


class CAREEncoder(Encoder):
    """Contextual attention-based representation learning.

    A context encoder turns the task's metadata into a context; the context gives each of E small encoders of the
    state a weight; the trunk sees their mixture beside the context.

    Source: Sodhani, Zhang, Pineau, "Multi-Task Reinforcement Learning with Context-based Representations" (ICML 2021,
    arXiv 2102.06177), and the authors' code (facebookresearch/mtrl at e282c3f, 2021-12): context and attention networks
    of three linear layers, 50-50-50-k; before the context network a projection of the metadata to 100 and 50 features;
    experts of two linear layers. The weights come from the context alone, and send no gradient back to it. Everything
    is shared; metadata are constants, unless they are learned: then a task owns its vector.

    Args:
        spec: sizes and tasks.
        metadata: ``"sentences"``: sentence embeddings of descriptions of Meta-World's tasks; ``"learned"``: a learned
            vector a task; or a mapping of task names to vectors of your own. None (default) takes sentences if all
            tasks are Meta-World's, and learns vectors if not.
        num_experts: number of encoders E; the authors have 6 for MT10, 10 for MT50.
        encoder_width: width of each of their layers, and so of an encoding.
        encoder_depth: number of their layers.
        context_dim: length of a context.

    Raises:
        ArgumentError: if metadata lack a task, naming it, or are no vectors of one length.
    """

    name = "care"

    def __init__(
        self,
        spec: NetworkSpec,
        metadata: str | Mapping[str, Any] | None = None,
        num_experts: Count = 6,
        encoder_width: Count = 50,
        encoder_depth: Count = 2,
        context_dim: Count = 50,
    ) -> None:
        super().__init__(spec)
        table = metadata_table(metadata, spec.task_names)
        activation = spec.activation_fn
        layers: list[nn.Module] = []
        if table is None:
            self.vectors = TaskEmbedding(spec.num_tasks, context_dim)
        else:
            self.table = nn.Parameter(table, requires_grad=False)
            layers = [nn.Linear(table.shape[1], 2 * context_dim), activation(), nn.Linear(2 * context_dim, context_dim)]
        self.learned = table is None
        self.context = nn.Sequential(*layers, activation(), *_three_layers(context_dim, context_dim, activation))
        self.attention = nn.Sequential(*_three_layers(context_dim, num_experts, activation))
        self.encoders = expert_mlp(
            num_experts, spec.in_features, [encoder_width] * encoder_depth, spec, activated=False
        )
        self.trunk = mlp(encoder_width + context_dim, spec, spec.out_features)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        if f"{prefix}attention.2.weight" in state_dict and f"{prefix}attention.4.weight" not in state_dict:
            errors = args[-1]
            errors.append(
                f"{prefix or 'encoder '}was saved by a version in which CARE's context and attention networks had two "
                "linear layers; now they have the three of its authors, and it must be trained anew"
            )

    def forward(self, inputs: Tensor, task: Tensor) -> Tensor:
        """See `Encoder.forward`."""
        context = self.context(self.vectors.vector(task) if self.learned else self.table)
        weights = self.attention(context.detach()).softmax(-1)  # which train nothing of the context
        if not self.learned:  # so far a row a task, whatever the batch
            context, weights = rows_of_table(context, task), rows_of_table(weights, task)
        mixture = mix(weights, self.encoders(inputs))
        return self.trunk(torch.cat([mixture, context.expand(inputs.shape[0], -1)], dim=-1))


def _three_layers(width: int, out_features: int, activation: type[nn.Module]) -> list[Any]:
    """Two hidden layers as wide as the input (``num_layers: 2`` in mtrl's configuration), then a linear one."""
    hidden = [nn.Linear(width, width), activation(), nn.Linear(width, width), activation()]
    return [*hidden, nn.Linear(width, out_features)]
