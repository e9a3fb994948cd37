"""An audit in words, for the person who answers for the data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hymate.audit.attack import FALSE_ALARMS, Attack, Found
from hymate.audit.audit import Audit
from hymate.audit.update_probe import Leak

MANY = 0.6
"""AUC whose lower end nobody would call guessing."""


def in_words(audit: Audit) -> Iterator[str]:
    """The audit, line by line."""
    yield f"Audit of {audit.model} (model {audit.kind}, task {audit.task})"
    yield f"{audit.members:,} people it was trained on, {audit.others:,} it never saw; delta {audit.delta:g}."
    yield ""
    yield "1. Can somebody with the model tell who was in the training data?"
    yield ""
    yield from _table(
        ("attack", "AUC (95 % interval)", f"found at {FALSE_ALARMS:.1%} false alarms", "epsilon at least"),
        [_attack_row(attack, audit) for attack in audit.attacks],
    )
    yield ""
    yield "AUC: 0.5 is guessing, 1 certainty. Epsilon: the attack refutes any smaller one (95 % confidence)."
    if not audit.attacks[0].resolved:
        finest = max(audit.attacks, key=lambda attack: attack.finest.share).finest
        yield (
            f"With {audit.others:,} people never seen, {FALSE_ALARMS:.1%} cannot be resolved: the figure is "
            f"at no false alarm at all. At one of them ({finest.false_alarms:.2%}) the best attack finds "
            f"{_found(finest)}."
        )
    if audit.shadows:
        yield f"Likelihood ratio: {audit.shadows} shadow models, each trained on half of all people."
    yield _verdict(audit)
    yield _against_claim(audit)
    if audit.leaks:
        yield ""
        yield "2. What does one update of a hospital give away to the coordinator?"
        yield ""
        yield from _table(
            ("update of", "noise", "codes: precision", "recall", "AUC", "label", "values: error", "guess"),
            [_leak_row(leak) for leak in audit.leaks],
        )
        yield ""
        yield (
            "Codes: which of them occur among the stays, read from the rows of the feature table that moved; "
            "precision of a blind guess: "
            f"{_range([leak.present for leak in audit.leaks if leak.present is not None])}. Label: how often "
            "one stay's is read from the update. Values: error of measured values that were fitted to the "
            "update, in standard deviations, and of guessing each code's mean."
        )


def _verdict(audit: Audit) -> str:
    auc = max((attack.auc for attack in audit.attacks), key=lambda figure: figure.lower or 0.0)
    if auc.lower is None or auc.lower <= 0.5:
        return "No attack did better than guessing could on so many people. A stronger one may."
    if auc.lower < MANY:
        return "The model remembers a little of who was in its training data; most people are hard to find."
    return "The model remembers who was in its training data: do not pass it on as if it were anonymous."


def _against_claim(audit: Audit) -> str:
    if audit.claim is None:
        return "No epsilon is known for this model: nothing bounds what better attacks find."
    least, claim = audit.epsilon_floor, audit.claim
    if least > claim.epsilon:
        return (
            f"The attacks refute epsilon {claim.epsilon:g} ({claim.source}): they show {least:.3g} at least. "
            "Either these are not the people it was trained on, or the noise was not there."
        )
    bound = f"epsilon {claim.epsilon:g} ({claim.source})"
    return f"What the attacks show ({least:.3g}) does not contradict {bound}: the truth is in between."


def _attack_row(attack: Attack, audit: Audit) -> tuple[str, ...]:
    auc = attack.auc
    interval = "" if auc.lower is None else f" ({auc.lower:.3f} - {auc.upper:.3f})"
    return (attack.name, f"{auc.value:.3f}{interval}", _found(attack.found), f"{attack.epsilon_floor:.3g}")


def _leak_row(leak: Leak) -> tuple[str, ...]:
    return (
        leak.round.words,
        f"{leak.round.noise:g}" if leak.round.noise else "none",
        *map(_share, (leak.precision, leak.recall)),
        *map(_number, (leak.separation,)),
        _share(leak.label),
        *map(_number, (leak.value_error, leak.guess_error)),
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        first, *rest = (
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join((f"  {first}", *rest))


def _found(found: Found) -> str:
    return f"{found.share:.1%} ({found.interval[0]:.1%} - {found.interval[1]:.1%})"


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def _number(number: float | None) -> str:
    return "-" if number is None else f"{number:.2f}"


def _range(numbers: Sequence[float]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:.0%}" if round(low, 2) == round(high, 2) else f"{low:.0%} to {high:.0%}"
