"""What was expected of federated training beforehand, each held against the finished runs: held or not held.

Which row is looked at follows from the tuning stays, never from the held-out ones: a best row chosen on the
figures that are reported would look better than it is.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from benchmarks.strategies.figures import Scores
from benchmarks.strategies.results import finished, ratio, row_of, scores
from benchmarks.strategies.runs import Table

RATIO = 0.985
LIFT, COST = 0.01, 0.005
HOLDS = 0.02
PLAIN = "FedAvg"
"""The row that fairness and robustness are measured against."""


def expectations(table: Table) -> list[str]:
    """One line for each expectation that this table can say something about."""
    if table.population.attacks:
        return [*_robust(table)]
    return [*_as_good_as_pooled(table), *_no_worse_than_alone(table), *_lifts_the_worst(table)]


def best_on_tuning(table: Table) -> str | None:
    """The federated row with the highest criterion on the tuning stays, on average over its seeds."""
    known = {}
    for row, config in table.rows.items():
        criteria = [each.best_criterion for each in finished(table, row).values()]
        if config.trained == "federated" and criteria and None not in criteria:
            known[row] = statistics.mean(value for value in criteria if value is not None)
    return max(known, key=lambda row: known[row], default=None)


def _looked_at(table: Table) -> list[str]:
    best = best_on_tuning(table)
    return list(dict.fromkeys(row for row in (PLAIN, best) if row in table.rows and row is not None))


def _as_good_as_pooled(table: Table) -> list[str]:
    pooled = row_of(table, "pooled")
    what = f"Federated AUROC at least {RATIO} of pooled training's"
    if pooled is None:
        return []
    ratios = {}
    for row in _looked_at(table):
        pairs = _pairs(scores(table, row), scores(table, pooled))
        found = [each for one, two in pairs if (each := ratio(one, two)) is not None]
        if found:
            ratios[row] = statistics.mean(found)
    if not ratios:
        return [_verdict(what, None, "")]
    told = "; ".join(f"{_name(table, row)} {ratio:.3f}" for row, ratio in ratios.items())
    return [_verdict(what, max(ratios.values()) >= RATIO, told)]


def _no_worse_than_alone(table: Table) -> list[str]:
    alone = row_of(table, "alone")
    what = "Every site's AUROC at least that of its own model"
    if alone is None:
        return []
    told, held = [], []
    for row in _looked_at(table):
        pairs = _pairs(scores(table, row), scores(table, alone))
        gains = _gains(pairs)
        if gains:
            worst = min(gains, key=lambda site: gains[site])
            above = sum(gain >= 0 for gain in gains.values())
            told.append(
                f"{_name(table, row)} {above} of {len(gains)} sites, least {gains[worst]:+.3f} ({worst})"
            )
            held.append(above == len(gains))
    return [_verdict(what, any(held) if held else None, "; ".join(told))]


def _lifts_the_worst(table: Table) -> list[str]:
    fair = [row for row, config in table.rows.items() if config.family == "fair"]
    what = (
        f"A fairness strategy lifts the worst site's AUROC by {LIFT} at a cost of at most {COST} of the "
        f"pooled one, against {PLAIN}"
    )
    if not fair or PLAIN not in table.rows:
        return []
    told, held = [], []
    for row in fair:
        pairs = _pairs(scores(table, row), scores(table, PLAIN))
        lifts = [one.worst - two.worst for one, two in pairs if one.worst and two.worst]
        gains = [one.auroc - two.auroc for one, two in pairs if one.auroc and two.auroc]
        if lifts and gains:
            lift, gain = statistics.mean(lifts), statistics.mean(gains)
            told.append(f"{row} worst {lift:+.3f}, pooled {gain:+.3f}")
            held.append(lift >= LIFT and gain >= -COST)
    return [_verdict(what, any(held) if held else None, "; ".join(told))]


def _robust(table: Table) -> list[str]:
    robust = [row for row, config in table.rows.items() if config.family == "robust"]
    what = (
        f"A robust strategy holds AUROC within {HOLDS} with one of five sites sending sign-flipped updates, "
        f"against {PLAIN} without an attack"
    )
    plain = next((row for row in table.rows if row.startswith(PLAIN)), None)
    if not robust or plain is None or "sign flip" not in table.attacks:
        return []
    before = {seed: each.held_out for seed, each in finished(table, plain).items() if each.held_out}
    told, held = [], []
    for row in (plain, *robust):
        after = {
            seed: each.held_out for seed, each in finished(table, row, "sign flip").items() if each.held_out
        }
        falls = [one.auroc - two.auroc for one, two in _pairs(after, before) if one.auroc and two.auroc]
        if falls:
            fall = statistics.mean(falls)
            told.append(f"{row} {fall:+.3f}")
            held += [fall >= -HOLDS] if row != plain else []
    return [_verdict(what, any(held) if held else None, "; ".join(told))]


def _gains(pairs: Sequence[tuple[Scores, Scores]]) -> dict[str, float]:
    """Site -> mean over seeds of how much better it is served by the first of each pair."""
    sites = sorted({site for one, two in pairs for site in one.known.keys() & two.known.keys()})
    return {
        site: statistics.mean(
            one.known[site] - two.known[site] for one, two in pairs if site in one.known and site in two.known
        )
        for site in sites
    }


def _pairs(ones: Mapping[int, Scores], others: Mapping[int, Scores]) -> list[tuple[Scores, Scores]]:
    return [(one, others[seed]) for seed, one in ones.items() if seed in others]


def _name(table: Table, row: str) -> str:
    return f"{row} (best on tuning)" if row == best_on_tuning(table) else row


def _verdict(what: str, held: bool | None, told: str) -> str:
    if held is None:
        return f"{what}: not measured yet."
    return f"{what}: **{'held' if held else 'not held'}** ({told})."
