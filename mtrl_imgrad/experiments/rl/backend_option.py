"""The name of a simulator back-end as an option, on the command line and in YAML."""

from __future__ import annotations

from typing import Annotated

import pydantic
import tyro

from mtrl_imgrad.envs.registry import check_backend, list_backends

BackendName = Annotated[
    str,
    pydantic.AfterValidator(check_backend),
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="|".join(("auto", *(backend.name for backend in list_backends() if not backend.own_tasks))),
        instance_from_str=lambda arguments: check_backend(arguments[0]),
        is_instance=lambda value: isinstance(value, str),
        str_from_instance=lambda name: [name],
    ),
]
"""``"auto"`` or a back-end of `mtrl_imgrad.envs.registry`."""
