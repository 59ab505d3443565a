"""Gaussian noise that is correlated in time, for exploration.

White noise hardly ever pushes the same way for twenty steps, which opening a drawer by its handle takes: what it moves,
it moves back. Noise with the power spectrum 1 / f^beta does, and every step alone is still N(0, 1), so that
probabilities of actions stay those of the Gaussian policy.

Eberhard, Hollenstein, Pinneri, Martius, "Pink Noise Is All You Need: Colored Noise Exploration in Deep Reinforcement
Learning", ICLR 2023; Hollenstein, Martius, Piater, "Colored Noise in PPO", AAAI 2024, arXiv 2312.11091.
"""

from __future__ import annotations

import torch
from torch import Tensor


def colored_noise(steps: int, shape: tuple[int, ...], beta: float, device: torch.device | str = "cpu") -> Tensor:
    """Stationary Gaussian noise with unit variance whose power spectrum falls as 1 / f^beta.

    Drawn from torch's global generator by the inverse Fourier transform of a random spectrum (Timmer, König, "On
    generating power law noise", 1995). The constant part has the power of the lowest frequency, 1 / steps.

    Args:
        steps: T, at least 2.
        shape: of a step; entries are independent of each other.
        beta: 0 is white, 1 pink, 2 red noise.
        device: where it is drawn.

    Returns:
        ``[T, *shape]``, float32.
    """
    frequencies = torch.fft.rfftfreq(steps, device=device, dtype=torch.float64)
    frequencies[0] = frequencies[1]  # 0 to a negative power is infinite
    amplitudes = frequencies ** (-beta / 2)
    # A frequency is a complex number, so twice a real one's variance; the constant and the highest one of an even
    # number of steps are real.
    real = torch.zeros_like(amplitudes, dtype=torch.bool)
    real[0] = True
    real[-1] |= steps % 2 == 0
    spectrum = torch.randn(*shape, len(amplitudes), 2, dtype=torch.float64, device=device)
    spectrum[..., 1].masked_fill_(real, 0.0)
    spectrum *= torch.where(real, 1.0, 0.5**0.5)[:, None] * amplitudes[:, None]
    # Each frequency but the real ones stands for itself and its mirror image.
    variance = (torch.where(real, 1.0, 2.0) * amplitudes.square()).sum() / steps**2
    noise = torch.fft.irfft(torch.view_as_complex(spectrum), n=steps, dim=-1) / variance.sqrt()
    return noise.movedim(-1, 0).float()
