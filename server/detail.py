"""What all sites' held-out figures have in common, agreed on their tuning stays before anyone is scored."""

from __future__ import annotations

from hymate.evaluate.edges import agreed_edges
from hymate.evaluate.histograms import ScoreCells
from hymate.evaluate.operating_point import threshold_on
from hymate.evaluation_config import OperatingPointConfig
from hymate.score_reports import Detail
from server.study import StudyConfig


def agreed_detail(study: StudyConfig, tuning: ScoreCells | None) -> Detail:
    """Edges of the bins, operating point and groups.

    Args:
        tuning: all sites' tuning stays under the weights to be evaluated; None where no site could tell:
            then bins are of equal width, and only a threshold that the study gives is one.
    """
    config = study.evaluation
    threshold = operating_threshold(config.operating_point, tuning)
    edges = agreed_edges(tuning, include=() if threshold is None else (threshold,))
    return Detail(
        edges=tuple(edges.tolist()),
        threshold=threshold,
        groups=config.groups,
        pairs=config.pairs,
    )


def operating_threshold(point: OperatingPointConfig, tuning: ScoreCells | None) -> float | None:
    """The threshold, or None where the tuning stays cannot say."""
    if point.threshold is not None:
        return round(point.threshold, 9)
    if tuning is None:
        return None
    if point.best is not None:
        return threshold_on(tuning, point.best, None)
    if point.sensitivity is not None:
        return threshold_on(tuning, "sensitivity", point.sensitivity)
    return threshold_on(tuning, "specificity", point.specificity)
