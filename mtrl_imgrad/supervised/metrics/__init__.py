"""Metrics of supervised tasks, in the names, units and order of the published tables."""

from mtrl_imgrad.supervised.metrics.attributes import AttributeMetric
from mtrl_imgrad.supervised.metrics.base import Metric
from mtrl_imgrad.supervised.metrics.depth import DepthMetric
from mtrl_imgrad.supervised.metrics.metric_set import MetricSet, make_metric
from mtrl_imgrad.supervised.metrics.normal import NormalMetric
from mtrl_imgrad.supervised.metrics.segmentation import SegmentationMetric

__all__ = [
    "AttributeMetric",
    "DepthMetric",
    "Metric",
    "MetricSet",
    "NormalMetric",
    "SegmentationMetric",
    "make_metric",
]
