"""docs/architecture.md draws the rooms as they are, no modules import each other in a circle, and arrows run down."""

import pytest

from tools import import_map


def package(tmp_path, **files):
    for name, text in files.items():
        path = tmp_path.joinpath(*name.split("__")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return import_map.graph(tmp_path)


def test_arrows_run_down():
    assert import_map.faults() == []


def test_the_page_is_the_code():
    text = import_map.PAGE.read_text(encoding="utf-8")
    assert import_map.page(text) == text, "python tools/import_map.py --write"


@pytest.mark.parametrize(
    "statement",
    [
        "from mtrl_imgrad.agents.sac import MTSAC",
        "import mtrl_imgrad.agents.sac",
        "from mtrl_imgrad.agents import sac",
        "def f():\n    from mtrl_imgrad.agents.sac import MTSAC",
        "class A:\n    def f(self):\n        if self:\n            import mtrl_imgrad.agents.sac as sac",
    ],
)
def test_an_arrow_that_runs_up_is_found(tmp_path, statement):
    arrows = package(tmp_path, envs__toy=statement, agents__sac="from mtrl_imgrad.envs import toy")
    assert import_map.faults(arrows) == [
        "cycle of modules: agents.sac, envs.toy",
        "arrow that runs up: envs.toy -> agents.sac",
    ]


def test_an_arrow_between_rooms_of_one_floor_is_found(tmp_path):
    arrows = package(tmp_path, combiners__base="import mtrl_imgrad.envs.toy", envs__toy="")
    assert import_map.faults(arrows) == ["arrow that runs up: combiners.base -> envs.toy"]


def test_a_circle_within_a_room_is_found(tmp_path):
    arrows = package(
        tmp_path,
        agents__sac__a="import mtrl_imgrad.agents.ppo.b",
        agents__ppo__b="",
        agents__ppo__c="import mtrl_imgrad.agents.sac.a",
    )
    assert import_map.faults(arrows) == ["cycle of folders: agents.ppo, agents.sac"]


def test_a_circle_of_a_folder_and_a_file_beside_it_is_found(tmp_path):
    arrows = package(
        tmp_path,
        agents__sac__a="import mtrl_imgrad.agents.log",
        agents__log="import mtrl_imgrad.agents.sac.b",
        agents__sac__b="",
    )
    assert import_map.faults(arrows) == ["cycle of folders: agents.log, agents.sac"]


def test_imports_for_the_type_checker_and_of_others_do_not_count(tmp_path):
    text = "import torch\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from mtrl_imgrad.agents import sac\n"
    assert import_map.faults(package(tmp_path, envs__toy=text, agents__sac="")) == []


def test_the_exception_is_imported_inside_a_function_only(tmp_path):
    lazy = "def backward():\n    from mtrl_imgrad.gradients import per_loss"
    below = "from mtrl_imgrad.combiners import base"
    assert import_map.faults(package(tmp_path, combiners__base=lazy, gradients__per_loss=below)) == []
    eager = "from mtrl_imgrad.gradients import per_loss"
    wrong = import_map.faults(package(tmp_path, combiners__base=eager, gradients__per_loss=below))
    assert wrong == ["an exception must be imported inside a function: combiners.base -> gradients.per_loss"]


def test_a_room_needs_a_floor(tmp_path):
    assert import_map.faults(package(tmp_path, attic__box="")) == ["room without a floor: attic"]
