"""A valid call of everything public: the arguments, made in a folder of the test's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mtrl_imgrad.agents.encoders import ENCODERS, make_encoder
from mtrl_imgrad.combiners import list_combiners, make_combiner
from mtrl_imgrad.envs import Backend
from mtrl_imgrad.experiments.presets import preset_path
from mtrl_imgrad.gradients import StepSettings
from mtrl_imgrad.supervised.datasets import DataFormat
from mtrl_imgrad.supervised.datasets.layers import DEPTH, IMAGE, label_layer
from mtrl_imgrad.supervised.kinds import task_kind
from mtrl_imgrad.supervised.metric_set import MetricSet
from mtrl_imgrad.supervised.metrics import DepthMetric, SegmentationMetric
from tests.support.combiners.examples import example_arguments, make_example
from tests.support.inputs.objects import (
    ACTION,
    NUMBERS,
    PAIR,
    SIGNS,
    SPEC,
    STATE,
    TASKS,
    agent,
    agent_arguments,
    cityscapes,
    combiner_key,
    dense_splits,
    eval_env,
    face_splits,
    faces,
    famo,
    fresh_agent,
    fresh_history,
    gramian,
    history,
    image_batch,
    jacobian,
    labels,
    model,
    module,
    nyuv2,
    office,
    optimization_step,
    outcomes_of_run,
    pascal,
    policy_arguments,
    qm9,
    report,
    resnet,
    run,
    saved_checkpoint,
    splits,
    supervised_config,
    task_loss,
    task_splits,
    weights_of,
)

Call = Callable[[Path], dict[str, Any]]
CALLS: dict[str, Call] = {
    **{combiner_key(name): lambda folder, name=name: example_arguments(name, 3) for name in list_combiners()},
    **{
        f"{one.__module__.removeprefix('mtrl_imgrad.')}.{one.__name__}": lambda folder: {"spec": SPEC}
        for one in ENCODERS.values()
    },
    "combiners.diagnostics.gramian_diagnostics": lambda folder: {"gramian": gramian()},
    "combiners.registry.combiner_class": lambda folder: {"name": "imgrad"},
    "combiners.registry.make_combiner": lambda folder: {"combiner": "imgrad"},
    "combiners.solvers.simplex_problems.conflict_averse_dual": lambda folder: {
        "gramian": gramian(),
        "linear": torch.ones(3),
        "radius": torch.tensor(0.5),
    },
    "combiners.solvers.simplex_problems.min_norm_point": lambda folder: {"gramian": gramian()},
    "agents.sac.agent.MTSAC": lambda folder: agent_arguments(buffer_size=400),
    "agents.ppo.agent.MTPPO": lambda folder: agent_arguments(n_steps=4, batch_size=8),
    "agents.td3.agent.MTTD3": lambda folder: agent_arguments(buffer_size=400),
    "agents.sac.policy.MTSACPolicy": policy_arguments,
    "agents.td3.policy.MTTD3Policy": policy_arguments,
    "agents.ppo.policy.MTPPOPolicy": policy_arguments,
    "agents.off_policy.buffer.TaskReplayBuffer": lambda folder: {
        "buffer_size": 8,
        "observation_space": STATE,
        "action_space": ACTION,
        "n_envs": 2,
        "task_names": ("a", "b"),
    },
    "agents.callbacks.diagnostics.GradientDiagnosticsCallback": lambda folder: {},
    "agents.callbacks.evaluation.MTEvalCallback": lambda folder: {"eval_env": eval_env()},
    "agents.callbacks.checkpoints.MTCheckpointCallback": lambda folder: {"save_freq": 10, "path": folder},
    "agents.callbacks.checkpoints.latest_checkpoint": lambda folder: {"path": saved_checkpoint(folder)},
    "agents.callbacks.progress.MTProgressBarCallback": lambda folder: {},
    "agents.encoders.dropout.Dropout": lambda folder: {"features": 4, "rate": 0.1},
    "agents.encoders.initialization.initialize": lambda folder: {
        "encoder": make_encoder("one_hot", SPEC),
        "initialization": "orthogonal",
        "critic": True,
    },
    "agents.encoders.base.NetworkSpec": lambda folder: vars(SPEC),
    "agents.encoders.make_encoder": lambda folder: {"encoder": "one_hot", "spec": SPEC},
    "envs.make.make_vec_env": lambda folder: {"tasks": "toy-reach"},
    "envs.registry.Backend": lambda folder: {"name": "mine", "vec_env": "module:Class", "task_sets": {"a": ("b", "c")}},
    "envs.registry.register_backend": lambda folder: {"backend": Backend("mine", "module:Class", {"a": ("b", "c")})},
    "envs.registry.list_tasks": lambda folder: {"task_set": "MT10"},
    "evaluation.protocol.EvaluationProtocol": lambda folder: {},
    "evaluation.history.EvaluationHistory": lambda folder: {"task_names": ("a", "b")},
    "evaluation.report.SuccessReport": lambda folder: {
        "task_names": ("a", "b"),
        "successes": np.array([[True], [False]]),
        "returns": np.ones((2, 1)),
        "lengths": np.ones((2, 1), dtype=np.int64),
    },
    "evaluation.method_statistics.paired_difference": lambda folder: {"first": [1.0, 2.0], "second": [2.0, 2.0]},
    "evaluation.method_statistics.performance_profile": lambda folder: {
        "scores": np.eye(3),
        "thresholds": [0.0, 0.5],
        "resamples": 10,
    },
    "evaluation.method_statistics.probability_of_improvement": lambda folder: {
        "first": np.eye(3),
        "second": np.ones((2, 3)),
        "resamples": 10,
    },
    "evaluation.method_statistics.seeds_needed": lambda folder: {"difference": 1.0, "deviation": 1.0},
    "evaluation.method_statistics.worst_tasks": lambda folder: {"scores": np.eye(3), "k": 2},
    "evaluation.statistics.aggregate_runs": lambda folder: {"scores": np.eye(3), "resamples": 10},
    "evaluation.statistics.interquartile_mean": lambda folder: {"values": np.eye(3)},
    "evaluation.statistics.stratified_bootstrap": lambda folder: {"scores": np.eye(3), "resamples": 10},
    "evaluation.statistics.success_interval": lambda folder: {"successes": np.eye(3, dtype=bool)},
    "evaluation.statistics.wilson_interval": lambda folder: {"successes": [1, 2], "trials": [3, 3]},
    "evaluation.success.evaluate_success": lambda folder: {"agent": agent(), "env": eval_env(), "n_episodes": 1},
    "evaluation.tables.markdown_table": lambda folder: {"report": report()},
    "evaluation.tables.print_success": lambda folder: {"report": report()},
    "evaluation.tables.success_table": lambda folder: {"report": report()},
    "evaluation.plots.bars.plot_per_task_bars": lambda folder: {"report": report(), "path": folder / "bars.png"},
    "evaluation.plots.curve.plot_success_curve": lambda folder: {
        "evaluations": history(),
        "path": folder / "curve.png",
    },
    "evaluation.plots.comparison.success_curves": lambda folder: {"runs": {"imgrad": [history()]}},
    "evaluation.plots.comparison.task_curves": lambda folder: {"runs": {"imgrad": [history()]}},
    "synthetic.measures.curves": lambda folder: {"run": run(), "method": 0, "scenario": 0, "count": 2},
    "synthetic.measures.outcomes": lambda folder: {"run": run()},
    "combiners.method_strings.parse_method": lambda folder: {"text": "imgrad:c=0.8"},
    "synthetic.optima.distance_to_front": lambda folder: {"points": torch.zeros(3, 2)},
    "synthetic.optima.front": lambda folder: {"count": 5},
    "synthetic.optima.minimiser": lambda folder: {"shares": torch.tensor([0.5])},
    "synthetic.problem.check_shares": lambda folder: {"shares": (0.5,)},
    "synthetic.problem.check_starts": lambda folder: {"starts": "five"},
    "synthetic.problem.task_weights": lambda folder: {"shares": (0.5,)},
    "synthetic.results.save_outcomes": lambda folder: {"outcomes": outcomes_of_run(), "settings": {}, "folder": folder},
    "synthetic.results.save_tables": lambda folder: {"tables": [], "folder": folder},
    "synthetic.run.descend": lambda folder: {"methods": ["mgda"], "starts": [(9.0, -1.0)], "steps": 1},
    "synthetic.tables.failure_table": lambda folder: {"outcomes": outcomes_of_run()},
    "synthetic.tables.reached_table": lambda folder: {"outcomes": outcomes_of_run(), "steps": 2},
    "synthetic.tables.scenario_table": lambda folder: {"outcomes": outcomes_of_run(), "s": 0.9},
    "synthetic.plots.plot_failures": lambda folder: {"run": run(), "scenario": 0, "path": folder / "a.png"},
    "synthetic.plots.plot_progress": lambda folder: {"run": run(), "scenario": 0, "path": folder / "a.png"},
    "synthetic.plots.plot_trajectories": lambda folder: {
        "run": run(),
        "outcomes": outcomes_of_run(),
        "scenario": 0,
        "path": folder / "a.png",
    },
    "synthetic.plots.trajectories_figure": lambda folder: {
        "run": run(),
        "outcomes": outcomes_of_run(),
        "scenario": 0,
    },
    "gradients.parameters.ParameterIndex": lambda folder: {"module": module()},
    "gradients.parameters.split_parameters": lambda folder: {"module": module()},
    "gradients.network_update.NetworkUpdate": lambda folder: {
        "network": module(),
        "combiner": make_combiner("mgda"),
        "loss": task_loss,
        "settings": StepSettings(),
    },
    "reporting.atomic_files.write_text": lambda folder: {"target": folder / "file", "text": "some"},
    "reporting.atomic_files.make_folder": lambda folder: {"argument": "path", "folder": folder / "new"},
    "reporting.atomic_files.write_atomically": lambda folder: {
        "target": folder / "file",
        "write": lambda file: file.write(b""),
    },
    "reporting.atomic_files.write_whole": lambda folder: {
        "target": folder / "file",
        "write": lambda file: file.write(b""),
    },
    "experiments.supervised.comparison.delta_m": lambda folder: {
        "results": PAIR,
        "baselines": PAIR,
        "higher_is_better": SIGNS,
    },
    "experiments.supervised.comparison.delta_p": lambda folder: {
        "results": PAIR,
        "baselines": PAIR,
        "higher_is_better": SIGNS,
    },
    "experiments.supervised.comparison.mean_rank": lambda folder: {"rows": {"one": PAIR}, "higher_is_better": SIGNS},
    "supervised.objectives.make_loss": lambda folder: {"task": TASKS[0]},
    "experiments.supervised.published.published_table": lambda folder: {"data_set": "nyuv2"},
    "supervised.tasks.TaskSpec": lambda folder: {"name": "a", "kind": "depth", "channels": 1},
    "supervised.models.registry.make_model": lambda folder: {"name": "segnet", "tasks": TASKS, "width": 1 / 32},
    "supervised.models.weights.load_backbone": lambda folder: {
        "model": resnet(),
        "path": weights_of(folder),
    },
    "supervised.models.sharing.split_parameters": lambda folder: {"model": model()},
    "supervised.metrics.attributes.AttributeMetric": lambda folder: {},
    "supervised.metrics.depth.DepthMetric": lambda folder: {},
    "supervised.metrics.classification.ClassificationMetric": lambda folder: {"num_classes": 3},
    "supervised.metrics.regression.RegressionMetric": lambda folder: {},
    "supervised.metrics.normal.NormalMetric": lambda folder: {},
    "supervised.metrics.segmentation.SegmentationMetric": lambda folder: {"num_classes": 3},
    "supervised.metric_set.MetricSet": lambda folder: {"tasks": TASKS},
    "supervised.objectives.make_metric": lambda folder: {"task": TASKS[0]},
    "supervised.datasets.registry.DataFormat": lambda folder: {"name": "mine", "reader": "module:Class"},
    "supervised.datasets.registry.data_format": lambda folder: {"name": "nyuv2"},
    "supervised.datasets.registry.register_format": lambda folder: {"record": DataFormat("mine", "module:Class")},
    "experiments.supervised.published.has_published_table": lambda folder: {"data_set": "nyuv2"},
    "supervised.datasets.dense.DenseDataset": lambda folder: {
        "root": nyuv2(folder),
        "split": "train",
        "folders": {"image": ("image", IMAGE), "segmentation": ("label", label_layer(3)), "depth": ("depth", DEPTH)},
        "classes": ("a", "b", "c"),
        "inverse_depth": False,
        "augment": False,
        "protocol": "fixed",
        "seed": 0,
    },
    "supervised.datasets.dense.NYUv2": lambda folder: {"root": nyuv2(folder), "split": "train"},
    "supervised.datasets.dense.CityScapes": lambda folder: {
        "root": cityscapes(folder),
        "split": "train",
        "num_classes": 3,
    },
    "supervised.datasets.celeba.CelebA": lambda folder: {"root": faces(folder), "split": "train"},
    "scenes.make.make_scenes": lambda folder: {
        "kind": "primitives",
        "root": folder / "scenes",
        "counts": {"train": 1, "val": 1},
        "height": 32,
        "width": 32,
        "progress_bar": False,
    },
    "supervised.datasets.writers.write_celeba": lambda folder: {
        "root": folder / f"written {next(NUMBERS)}",
        "splits": face_splits(),
        "attribute_names": ["Red", "Green"],
    },
    "supervised.datasets.writers.write_cityscapes": lambda folder: {
        "root": folder / f"written {next(NUMBERS)}",
        "splits": dense_splits(),
    },
    "supervised.datasets.writers.write_nyuv2": lambda folder: {
        "root": folder / f"written {next(NUMBERS)}",
        "splits": dense_splits(),
    },
    "supervised.splits.TaskSplits": task_splits,
    "supervised.kinds.record.TaskKind": lambda folder: {**vars(task_kind("depth")), "name": "mine"},
    "supervised.kinds.registry.list_kinds": lambda folder: {},
    "supervised.kinds.registry.task_kind": lambda folder: {"name": "depth"},
    "supervised.kinds.registry.register_kind": lambda folder: {
        "record": dataclasses.replace(task_kind("depth"), name="mine")
    },
    "supervised.datasets.office.Office31": lambda folder: {
        "root": office(folder, "amazon", "dslr", "webcam"),
        "split": "train",
        "task": "amazon",
    },
    "supervised.datasets.office.OfficeHome": lambda folder: {
        "root": office(folder, "Art", "Clipart", "Product", "Real_World"),
        "split": "train",
        "task": "Art",
    },
    "supervised.datasets.pascal.PascalContext": lambda folder: {"root": pascal(folder), "split": "train"},
    "supervised.datasets.qm9.QM9": lambda folder: {"root": qm9(folder), "split": "train", "held_out": 2},
    "supervised.splits.Splits": lambda folder: vars(splits(folder)),
    "experiments.supervised.data.load_splits": lambda folder: {"config": supervised_config(folder).data},
    "supervised.trainer.MultiTaskTrainer": lambda folder: {"model": model(), "data": splits(folder), "device": "cpu"},
    "experiments.rl.config.CheckpointConfig": lambda folder: {},
    "experiments.rl.config.EvaluationConfig": lambda folder: {},
    "experiments.rl.config.TrainConfig": lambda folder: {},
    "supervised.settings.OptimizationConfig": lambda folder: {},
    "supervised.settings.ReportConfig": lambda folder: {},
    "experiments.supervised.config.SupervisedConfig": lambda folder: {},
    "experiments.supervised.config.DataConfig": lambda folder: {},
    "experiments.supervised.config.MethodConfig": lambda folder: {},
    "experiments.supervised.config.ModelConfig": lambda folder: {},
    "experiments.supervised.config.load_config": lambda folder: {"path": preset_path("supervised", "nyuv2")},
    "experiments.rl.config.load_config": lambda folder: {"path": preset_path("rl", "mt10")},
    "experiments.presets.list_presets": lambda folder: {"kind": "rl"},
    "experiments.presets.preset_path": lambda folder: {"kind": "rl", "name": "mt10"},
    "experiments.rl.config.train_config_class": lambda folder: {"agent": "mtsac"},
}
METHODS: dict[str, Callable[[Path], tuple[Any, dict[str, Any]]]] = {
    **{
        f"{name}()": lambda folder, name=name: (
            make_example(name, 3).__call__,
            {"jacobian": jacobian(), "losses": torch.ones(3), "tasks": [0, 1, 2]},
        )
        for name in list_combiners()
    },
    **{
        f"{name}.weights": lambda folder, name=name: (make_example(name, 3).weights, {"gramian": gramian()})
        for name in ("imgrad", "nash_mtl", "config", "conicgrad", "pcgrad", "sdmgrad_os", "upgrad", "cagrad_fast")
    },
    "uw.weights": lambda folder: (make_example("uw", 3).weights, {"losses": torch.ones(3)}),
    "imgrad.backward": lambda folder: (make_combiner("imgrad").backward, optimization_step(folder)),
    "rlw.backward": lambda folder: (make_combiner("rlw").backward, optimization_step(folder)),
    "famo.load_state_dict": lambda folder: (famo().load_state_dict, {"state": famo().state_dict()}),
    "agent.learn": lambda folder: (fresh_agent().learn, {"total_timesteps": 4}),
    "report.save": lambda folder: (report().save, {"path": folder / "report"}),
    "history.append": lambda folder: (fresh_history().append, {"timesteps": 1, "report": report()}),
    "segmentation.update": lambda folder: (
        SegmentationMetric(3).update,
        {"prediction": image_batch(3), "target": labels()},
    ),
    "depth.update": lambda folder: (DepthMetric().update, {"prediction": image_batch(1), "target": image_batch(1)}),
    "metrics.update": lambda folder: (
        MetricSet(TASKS).update,
        {
            "predictions": {"segmentation": image_batch(3), "depth": image_batch(1)},
            "targets": {"segmentation": labels(), "depth": image_batch(1)},
        },
    ),
}
