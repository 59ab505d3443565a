"""N steps are N/2 steps, a checkpoint, another process and N/2 steps: bit for bit, logs among them.

Every combiner that keeps something from step to step is found in the registry, so that a new one is held to it too.
"""

from __future__ import annotations

import pytest
from combiner_examples import list_variants
from resumed_runs import STEPS, Run, assert_equal_states, assert_the_same, run_in_both_ways

from mtrl_imgrad.combiners.registry import combiner_class, list_combiners, make_combiner
from mtrl_imgrad.envs import list_tasks

TASKS = len(list_tasks("toy-reach"))
STATEFUL = {
    variant: (name, given)
    for variant, (name, given) in list_variants(TASKS, any_losses=True).items()
    if make_combiner(name, **given).state_dict()
}
"""Every way in which a combiner of the registry has a state: name and arguments, by a word for both."""
BACKENDS = {
    "toy": ("toy-reach", {"num_envs_per_task": 2}),
    "metaworld": (["reach-v3", "push-v3"], {"backend": "metaworld", "num_envs_per_task": 2}),
    "metaworld-async": (
        ["reach-v3", "push-v3"],
        {"backend": "metaworld", "vector_strategy": "async", "num_workers": 2},
    ),
    "envpool": (["reach-v3", "push-v3"], {"backend": "envpool", "num_envs_per_task": 2}),
}


def _of_combiner(folder, agent, variant):
    name, given = STATEFUL[variant]
    # Tracing changes no number and costs most of a short run's time; the runs of back-ends trace.
    arguments = {"combiner": name, "combiner_kwargs": given, "trace": False}
    return Run(str(folder / f"{agent}-{variant}"), agent, arguments)


def _of_backend(folder, agent, backend):
    tasks, env = BACKENDS[backend]
    critic = {"mtsac": "moco", "mtppo": "db_mtl"}[agent]
    return Run(
        str(folder / f"{agent}-{backend}"), agent, {"combiner": {"actor": "gradvac", "critic": critic}}, tasks, env
    )


def _runs(make, kinds, folder):
    runs = {kind: make(folder, *kind) for kind in kinds}
    run_in_both_ways(list(runs.values()), folder)
    return runs


ALTERNATING = [(("mtsac", "mtppo")[i % 2], variant) for i, variant in enumerate(STATEFUL)]
OTHERS = [(("mtppo", "mtsac")[i % 2], variant) for i, variant in enumerate(STATEFUL)]
FAST_BACKENDS = [("mtsac", "envpool"), ("mtppo", "toy")]
SLOW_BACKENDS = [(a, b) for a in ("mtsac", "mtppo") for b in BACKENDS if (a, b) not in FAST_BACKENDS]


@pytest.fixture(scope="module")
def combiner_runs(tmp_path_factory):
    return _runs(_of_combiner, ALTERNATING, tmp_path_factory.mktemp("combiners"))


@pytest.fixture(scope="module")
def other_runs(tmp_path_factory):
    return _runs(_of_combiner, OTHERS, tmp_path_factory.mktemp("others"))


@pytest.fixture(scope="module")
def backend_runs(tmp_path_factory):
    return _runs(_of_backend, FAST_BACKENDS, tmp_path_factory.mktemp("backends"))


@pytest.fixture(scope="module")
def slow_backend_runs(tmp_path_factory):
    return _runs(_of_backend, SLOW_BACKENDS, tmp_path_factory.mktemp("slow_backends"))


@pytest.mark.parametrize("kind", ALTERNATING, ids="-".join)
def test_every_combiner_with_a_state(kind, combiner_runs):
    assert_the_same(combiner_runs[kind])


@pytest.mark.slow
@pytest.mark.parametrize("kind", OTHERS, ids="-".join)
def test_every_combiner_with_a_state_in_the_other_agent(kind, other_runs):
    assert_the_same(other_runs[kind])


@pytest.mark.parametrize("kind", FAST_BACKENDS, ids="-".join)
def test_back_ends(kind, backend_runs):
    assert_the_same(backend_runs[kind])


@pytest.mark.slow
@pytest.mark.parametrize("kind", SLOW_BACKENDS, ids="-".join)
def test_every_back_end(kind, slow_backend_runs):
    assert_the_same(slow_backend_runs[kind])


def test_no_part_of_a_state_is_left_out():
    """The runs above hold every part that a combiner says it keeps, but for methods that an agent cannot feed."""
    held = {(name, part) for name, given in STATEFUL.values() for part in make_combiner(name, **given).state_dict()}
    named = {(name, part) for name in list_combiners() for part in combiner_class(name).keeps}
    assert named - held == {("sdmgrad", "weights")}
    assert make_combiner("sdmgrad", halves=True).rows_per_task == 2, "the agents have one row a task"


def test_the_tests_above_can_fail(combiner_runs):
    kind = ALTERNATING[0]
    run = combiner_runs[kind]
    with pytest.raises(AssertionError):
        assert_equal_states(run.checkpoint("whole", STEPS, TASKS), run.checkpoint("whole", 2 * STEPS, TASKS))
