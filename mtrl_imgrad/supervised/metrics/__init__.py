"""Metrics of supervised tasks, in the names, units and order of the published tables."""

from mtrl_imgrad.supervised.metrics.attributes import AttributeMetric
from mtrl_imgrad.supervised.metrics.base import Metric
from mtrl_imgrad.supervised.metrics.classification import ClassificationMetric
from mtrl_imgrad.supervised.metrics.depth import DepthMetric
from mtrl_imgrad.supervised.metrics.normal import NormalMetric
from mtrl_imgrad.supervised.metrics.regression import RegressionMetric
from mtrl_imgrad.supervised.metrics.segmentation import SegmentationMetric

__all__ = [
    "AttributeMetric",
    "ClassificationMetric",
    "DepthMetric",
    "Metric",
    "NormalMetric",
    "RegressionMetric",
    "SegmentationMetric",
]
