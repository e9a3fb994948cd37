"""Counts and statistics with noise: charged to the site's ledger first, the same bits when asked again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from client.agreed import fingerprint_of
from client.ledger import Ledger
from client.ledger_entry import Entry, start_of
from client.policy import publishable
from client.site import SiteConfig
from hymate.data.noisy_statistics import Draw, noisy_counts, noisy_statistics
from hymate.data.statistics import SiteStatistics
from hymate.data.tasks import Windows
from hymate.joining_protocol import DescribeRequest, NoisyCounts, SplitCounts, StatisticsRequest
from hymate.privacy.spend import SAMPLED_GAUSSIAN, Spend
from hymate.train.noise import SecretNoise


def noisy_splits(site: SiteConfig, request: DescribeRequest, windows: Windows) -> dict[str, SplitCounts]:
    """People by split, and those with the label; noise or not, no number below the site's minimum leaves."""
    assert request.noisy is not None  # whoever calls this has looked
    draw = _charged_query(site, request, request.noisy, "describe")
    counts = noisy_counts(windows, request.noisy.noise_multiplier, draw)
    return {
        name: SplitCounts(
            stays=publishable(stays, site.policy), positives=publishable(positives, site.policy)
        )
        for name, (stays, positives) in counts.items()
    }


def noisy_code_statistics(
    site: SiteConfig, request: StatisticsRequest, windows: Windows, units: Mapping[str, str]
) -> SiteStatistics:
    """Statistics of the codes that the study lists."""
    noisy = request.noisy
    assert noisy is not None  # whoever calls this has looked
    draw = _charged_query(site, request, noisy, "statistics")
    return noisy_statistics(
        windows, units, noisy.codes, noisy.noise_multiplier, draw, mapping=request.mapping, site=site.name
    )


def charged(site: SiteConfig, entry: Entry) -> Draw:
    """Enter a release in the ledger; the normal numbers that follow from the entry.

    Raises:
        InputFault: the site's budget or its ledger does not allow it.
    """
    noise = SecretNoise(Ledger(site).charge(entry))
    return lambda count: noise.normal(count).numpy()


def _charged_query(
    site: SiteConfig,
    request: DescribeRequest | StatisticsRequest,
    noisy: NoisyCounts,
    phase: Literal["describe", "statistics"],
) -> Draw:
    spend = Spend(SAMPLED_GAUSSIAN, 1.0, noisy.noise_multiplier, 1)
    entry = Entry(
        study=noisy.study,
        run="",
        phase=phase,
        round=0,
        start=start_of(site, request),
        vocabulary_hash="",
        dataset=fingerprint_of(site, request.task),
        spend=spend,
    )
    return charged(site, entry)
