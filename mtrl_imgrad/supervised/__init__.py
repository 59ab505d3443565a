"""Supervised multi-task benchmarks: NYUv2, CityScapes, CelebA, and simulated scenes in the same formats.

Nothing is loaded here: import the part that you need, such as ``mtrl_imgrad.supervised.datasets``.
"""
