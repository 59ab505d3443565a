"""Optional packages: what brings each, and the one message where one is missing.

``pip install mtrl-imgrad`` brings the combiners and gradients: torch, NumPy, annotated-types. All else comes with an
extra. A folder that needs more says so in its first line, with `require`, so that importing anything below it fails
with the command that helps.
"""

from __future__ import annotations

from importlib.util import find_spec

from mtrl_imgrad.errors import MissingDependencyError

PACKAGES = {
    "tyro": ("tyro", "cli"),
    "rich": ("rich", "cli"),
    "yaml": ("pyyaml", "cli"),
    "pydantic": ("pydantic", "cli"),
    "matplotlib": ("matplotlib", "cli"),
    "scipy": ("scipy", "cli"),
    "safetensors": ("safetensors", "cli"),
    "gymnasium": ("gymnasium", "rl"),
    "stable_baselines3": ("stable-baselines3", "rl"),
    "tensorboard": ("tensorboard", "rl"),
    "metaworld": ("metaworld", "rl"),
    "mujoco": ("mujoco", "vision"),
    "PIL": ("pillow", "vision"),
    "envpool": ("envpool", "fast"),
    "torchjd": ("torchjd", "torchjd"),
    "imageio": ("imageio", "video"),
    "imageio_ffmpeg": ("imageio-ffmpeg", "video"),
    "onnx": ("onnx", "export"),
    "ray": ("ray", "cluster"),
    "cvxpy": ("cvxpy", ""),
    "pandas": ("pandas", ""),
}
"""By module: the name that pip knows it by, and the extra that brings it; "" is none."""


def install_command(*modules: str) -> str:
    """The command that installs these modules.

    >>> install_command("rich", "gymnasium", "PIL")
    "pip install 'mtrl-imgrad[rl,vision]'"
    >>> install_command("cvxpy")
    'pip install cvxpy'
    """
    packages = [PACKAGES[module] for module in modules]
    extras = {extra for _, extra in packages if extra}
    if len(extras) > 1:
        extras.discard("cli")  # all others contain it
    targets = [f"'mtrl-imgrad[{','.join(sorted(extras))}]'"] if extras else []
    return " ".join(["pip install", *targets, *(name for name, extra in packages if not extra)])


def require(user: str, *modules: str) -> None:
    """Check that modules are installed, without importing them.

    Args:
        user: what needs them, for the message.
        modules: names in `PACKAGES`.

    Raises:
        MissingDependencyError: if any is not installed; names them, and the command that installs them.
    """
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        names = ", ".join(PACKAGES[module][0] for module in missing)
        verb = "is" if len(missing) == 1 else "are"
        raise MissingDependencyError(f"{user} needs {names}, which {verb} not installed: {install_command(*missing)}")
