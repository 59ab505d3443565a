"""Simulated scenes with true labels, rendered and labelled by MuJoCo; they are not photographs and not NYUv2."""

from mtrl_imgrad.extras import require

require("mtrl_imgrad.scenes", "mujoco", "PIL", "rich")

from mtrl_imgrad.scenes.make import SCENE_KINDS, make_scenes

__all__ = ["SCENE_KINDS", "make_scenes"]
