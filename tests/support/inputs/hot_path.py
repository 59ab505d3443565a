"""Public functions that run at each step or update: they check no argument types, and who calls them has."""

from __future__ import annotations

HOT_PATH = {
    "gradients.combining.combine_rows": "gradients.network_update.NetworkUpdate",
    "gradients.combining.weighted_gradients": "gradients.network_update.NetworkUpdate",
    "gradients.vectorized.by_rows": "gradients.network_update.NetworkUpdate",
    "gradients.vectorized.differentiable_losses": "gradients.network_update.NetworkUpdate",
    "gradients.vectorized.over_tasks": "gradients.network_update.NetworkUpdate",
    "gradients.per_loss.accumulate.Accumulation": "Combiner.accumulate",
    "gradients.per_loss.backward": "Combiner.backward",
    "supervised.datasets.augmentation.apply_view": "supervised.datasets.dense.DenseDataset",
    "supervised.datasets.augmentation.draw_view": "supervised.datasets.dense.DenseDataset",
    "supervised.losses.attribute_loss": "supervised.objectives.make_loss",
    "supervised.losses.classification_loss": "supervised.objectives.make_loss",
    "supervised.losses.regression_loss": "supervised.objectives.make_loss",
    "supervised.losses.depth_loss": "supervised.objectives.make_loss",
    "supervised.losses.normal_loss": "supervised.objectives.make_loss",
    "supervised.losses.segmentation_loss": "supervised.objectives.make_loss",
    "supervised.splits.length": "supervised.splits.Splits",
    "supervised.splits.set_epoch": "supervised.splits.Splits",
    "synthetic.problem.evaluate": "synthetic.run.descend",
    "agents.off_policy.buffer.TaskReplayBuffer.add": "agents.off_policy.buffer.TaskReplayBuffer",
    "agents.off_policy.buffer.TaskReplayBuffer.sample": "agents.sac.agent.MTSAC",
    "agents.off_policy.reward_moments.RewardMoments.add": "agents.off_policy.buffer.TaskReplayBuffer",
    "agents.sac.agent.MTSAC.collect_rollouts": "agents.sac.agent.MTSAC",
    "agents.sac.agent.MTSAC.train": "agents.sac.agent.MTSAC.learn",
    "agents.ppo.agent.MTPPO.collect_rollouts": "agents.ppo.agent.MTPPO",
    "agents.ppo.agent.MTPPO.train": "agents.ppo.agent.MTPPO.learn",
    "combiners.base.Combiner.combine": "the combiner's constructor",
}
"""By name: the entry point whose arguments are checked."""
