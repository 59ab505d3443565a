"""The run's one seed reaches everything that is random, each purpose by a stream of its own."""

import inspect
import itertools

import numpy as np
import pytest
import torch

from mtrl_imgrad import MTPPO, MTSAC, make_combiner, make_vec_env
from mtrl_imgrad.combiners import PCGrad, list_combiners
from mtrl_imgrad.combiners.registry import combiner_class
from mtrl_imgrad.errors import ArgumentError
from mtrl_imgrad.seeding import Stream, numpy_generator, seed_sequence, stream_seed, torch_generator
from mtrl_imgrad.synthetic import descend

RANDOM = [name for name in list_combiners() if "seed" in inspect.signature(combiner_class(name)).parameters]
"""Combiners that draw; IMGrad only where it samples tasks."""
OPTIONS = {"imgrad": {"tasks_per_step": 2}}
AGENTS = {"mtsac": (MTSAC, {"batch_size": 8, "learning_starts": 16}), "mtppo": (MTPPO, {"n_steps": 4, "batch_size": 8})}


def agent(kind, combiner, seed, **options):
    cls, arguments = AGENTS[kind]
    arguments = {**arguments, "policy_kwargs": {"net_arch": [4]}, "device": "cpu", "trace": False, **options}
    return cls("MlpPolicy", make_vec_env("toy-reach", seed=0), combiner=combiner, seed=seed, **arguments)


def drawn(combiner):
    """The next numbers of a combiner's generator."""
    return tuple(torch.rand(4, generator=combiner._generator).tolist())


@pytest.mark.parametrize("given", ["name", "object", "by network"])
@pytest.mark.parametrize("name", RANDOM)
@pytest.mark.parametrize("kind", AGENTS)
def test_combiners_of_a_run_draw_from_streams_of_its_seed(kind, name, given):
    def both(seed):
        options = {}
        combiner = name
        if given == "object":
            combiner = make_combiner(name, **OPTIONS.get(name, {}))
        elif given == "by network":
            combiner = {"actor": make_combiner(name, **OPTIONS.get(name, {})), "critic": name}
            options = {"combiner_kwargs": {"critic": OPTIONS.get(name, {}), "actor": {}}}
        else:
            options = {"combiner_kwargs": OPTIONS.get(name, {})}
        found = agent(kind, combiner, seed, **options)
        return drawn(found.actor_combiner), drawn(found.critic_combiner)

    sevens = both(7)
    assert sevens == both(7)
    assert len({*sevens, *both(8), *both(None), *both(None)}) == 8  # actors, critics and seeds all differ


@pytest.mark.parametrize("kind", AGENTS)
@pytest.mark.parametrize("given", ["name", "object"])
def test_a_seed_of_its_own_wins(kind, given):
    options = {"combiner_kwargs": {"seed": 3}} if given == "name" else {}
    combiner = "pcgrad" if given == "name" else PCGrad(seed=3)
    alone = drawn(PCGrad(seed=3))
    for seed in (7, 8):
        found = agent(kind, combiner, seed, **options)
        assert drawn(found.actor_combiner) == drawn(found.critic_combiner) == alone


def test_the_seed_of_one_network_wins_for_it_alone():
    found = agent("mtsac", "pcgrad", 7, combiner_kwargs={"actor": {"seed": 3}, "critic": {}})
    assert drawn(found.actor_combiner) == drawn(PCGrad(seed=3))
    assert drawn(found.critic_combiner) == drawn(agent("mtsac", "pcgrad", 7).critic_combiner)


@pytest.mark.parametrize("kind", AGENTS)
def test_set_random_seed_seeds_what_is_the_agents_own(kind):
    """As SB3's does: what follows does not depend on the seed that the agent was made with."""

    def learned(made_with):
        found = agent(kind, "pcgrad", made_with)
        found.policy.load_state_dict(start)
        found.set_random_seed(5)
        found.learn(32)
        return found.policy.state_dict()

    start = agent(kind, "pcgrad", 0).policy.state_dict()
    expected = learned(4)
    for made_with in (None, 3):
        found = learned(made_with)
        assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize("kind", AGENTS)
def test_a_saved_agent_goes_on_drawing_where_it_was(kind, tmp_path):
    found = agent(kind, "pcgrad", 7)
    drawn(found.actor_combiner)
    found.save(tmp_path / "model")
    loaded = AGENTS[kind][0].load(tmp_path / "model")
    assert drawn(loaded.actor_combiner) == drawn(found.actor_combiner)


def test_a_combiner_that_was_handed_over_is_left_alone():
    mine = PCGrad()
    agent("mtsac", mine, 7)
    assert drawn(mine) == drawn(PCGrad())


@pytest.mark.parametrize("name", sorted({*list_combiners()} - {*RANDOM, "cotbal"}))
def test_combiners_that_draw_nothing_take_any_run(name):
    combiner = make_combiner(name)
    before = combiner.state_dict()
    combiner.set_random_seed(5)
    assert combiner.state_dict().keys() == before.keys()
    assert combiner_class(name).seed is None


@pytest.mark.parametrize("seed", [-1, 0.5, None, True, 2**63])
def test_a_run_hands_over_a_number(seed):
    with pytest.raises(ArgumentError, match="seed must be"):
        PCGrad().set_random_seed(seed)


def test_no_two_streams_of_a_program_are_one():
    together = [("agent", "environment"), ("supervised",), ("synthetic",), ("scenes",)]
    for parts in together:
        streams = [stream for stream in Stream if stream.part in parts]
        for one, other in itertools.combinations(streams, 2):
            lengths = len(one.key) + one.num_indices, len(other.key) + other.num_indices
            shorter = min(len(one.key), len(other.key))
            assert lengths[0] != lengths[1] or one.key[:shorter] != other.key[:shorter], (one, other)
    assert {stream.part for stream in Stream} == {part for parts in together for part in parts}


def test_streams_are_what_numpy_spawns():
    """By NumPy's own spawning: the children of a seed are independent, and those of releases stay what they were."""
    children = np.random.SeedSequence(11).spawn(5)
    assert stream_seed(11, Stream.UPDATE) == int(children[1].generate_state(1)[0])
    assert stream_seed(11, Stream.MINIBATCHES) == int(children[2].generate_state(1)[0])
    assert stream_seed(11, Stream.REPLAY) == int(np.random.SeedSequence(11).generate_state(1)[0])
    assert stream_seed(11, Stream.CRITIC_COMBINER) == int(children[4].generate_state(1, np.uint64)[0]) // 2
    goals = numpy_generator(11, Stream.GOALS, 6).random(3)
    assert goals.tolist() == np.random.default_rng(children[0].spawn(7)[6]).random(3).tolist()
    assert torch_generator(11, Stream.UPDATE).initial_seed() == stream_seed(11, Stream.UPDATE)


def test_a_stream_says_how_many_indices_it_takes():
    with pytest.raises(AssertionError, match="takes 2 indices"):
        seed_sequence(0, Stream.ROWS, 1)


def test_each_trajectory_draws_for_itself_and_by_the_runs_seed():
    def positions(seed):
        run = descend(["graddrop"], shares=(0.5,), starts=[(0.0, 0.0)] * 2, steps=20, lr=0.1, seed=seed)
        return run.positions[:, 0, 0]  # [steps + 1, 2 trajectories, 2]

    assert not torch.equal(*positions(0).unbind(1))
    assert torch.equal(positions(0), positions(0))
    assert not torch.equal(positions(0), positions(1))
    with pytest.raises(ArgumentError, match="seed must be"):
        positions(-1)
