"""N steps are N/2 steps, a checkpoint, another process and N/2 steps: bit for bit, logs among them.

Every combiner that keeps something from step to step is found in the registry, so that a new one is held to it too.
"""

from __future__ import annotations

import pytest

from mtrl_imgrad.agents.registry import AGENTS
from mtrl_imgrad.combiners.registry import list_combiners, make_combiner
from mtrl_imgrad.envs import list_tasks
from tests.support.agents.resumed_runs import STEPS, Run, assert_equal_states, assert_the_same, run_in_both_ways
from tests.support.combiners.examples import list_variants

pytestmark = pytest.mark.faults

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


def _run(folder, agent, what):
    """The run of an agent with combiners of `STATEFUL` on toy-reach, or on a back-end of `BACKENDS`."""
    folder = str(folder / f"{agent}-{what}")
    # Tracing changes no number and costs most of a short run's time; the runs on "toy" trace.
    if what not in BACKENDS:
        actor, _, critic = what.partition("+")
        (actor, for_actor), (critic, for_critic) = STATEFUL[actor], STATEFUL[critic or actor]
        combiner, kwargs = {"actor": actor, "critic": critic}, {"actor": for_actor, "critic": for_critic}
        return Run(folder, agent, {"combiner": combiner, "combiner_kwargs": kwargs, "trace": False})
    critic = {"mtsac": "moco", "mtppo": "db_mtl", "mttd3": "moco"}[agent]
    combiner = {"actor": "gradvac", "critic": critic}
    return Run(folder, agent, {"combiner": combiner, "trace": what == "toy"}, *BACKENDS[what])


KINDS = [(agent, what) for agent in AGENTS for what in (*STATEFUL, *BACKENDS)]
PAIRS = ["+".join(list(STATEFUL)[i : i + 2]) for i in range(0, len(STATEFUL), 2)]
"""The actor's combiner and the critic's, so that one run holds two."""
# That simulators' episodes go on after a checkpoint, tests/envs/test_restoring.py says by itself.
FAST = [*((("mtsac", "mtppo")[i % 2], pair) for i, pair in enumerate(PAIRS)), ("mttd3", "toy")]
SLOW = [kind for kind in KINDS if kind not in FAST]


def _in_both_ways(kinds, folder):
    runs = {kind: _run(folder, *kind) for kind in kinds}
    run_in_both_ways(list(runs.values()), folder)
    return runs


@pytest.fixture(scope="module")
def fast_runs(tmp_path_factory):
    return _in_both_ways(FAST, tmp_path_factory.mktemp("fast"))


@pytest.fixture(scope="module")
def slow_runs(tmp_path_factory):
    return _in_both_ways(SLOW, tmp_path_factory.mktemp("slow"))


@pytest.mark.parametrize("kind", FAST, ids="-".join)
def test_every_combiner_with_a_state(kind, fast_runs):
    assert_the_same(fast_runs[kind])


@pytest.mark.slow
@pytest.mark.parametrize("kind", SLOW, ids="-".join)
def test_every_combiner_with_a_state_and_every_back_end_with_every_agent(kind, slow_runs):
    assert_the_same(slow_runs[kind])


def test_no_part_of_a_state_is_left_out():
    """The runs above hold every part that a combiner keeps by default."""
    held = {(name, part) for name, given in STATEFUL.values() for part in make_combiner(name, **given).state_dict()}
    ready = set(list_combiners()) - {"cotbal"}  # which must be given scores, and keeps nothing
    assert {(name, part) for name in ready for part in make_combiner(name).state_dict()} <= held
    assert make_combiner("sdmgrad", halves=True).rows_per_task == 2, "it keeps weights, but agents have one row a task"


def test_the_tests_above_can_fail(fast_runs):
    run = fast_runs[FAST[0]]
    with pytest.raises(AssertionError):
        assert_equal_states(run.checkpoint("whole", STEPS, TASKS), run.checkpoint("whole", 2 * STEPS, TASKS))
