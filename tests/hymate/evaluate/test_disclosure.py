"""No small count can be had by subtraction, whatever a site's groups are."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hymate.evaluate.disclosure import tellable, tellable_pairs
from hymate.evaluate.group_cells import Scored, ToldGroups, one_attribute, two_attributes
from hymate.evaluate.group_members import Members
from hymate.evaluate.histograms import ScoreCells, count_between, join_small_cells
from hymate.evaluate.merging import large_enough, runs


def test_one_small_group_takes_another_with_it() -> None:
    groups = np.array([[40, 60], [20, 30], [2, 30]])
    assert tellable(groups, groups.sum(axis=0), 5) == [0], "20 and 2 positives are told as 22"
    assert tellable(groups, groups.sum(axis=0) + 10, 5) == [0, 1], "10 more are in no group"
    assert tellable(groups[:2], groups[:2].sum(axis=0), 5) == [0, 1]
    assert tellable(groups[:2], groups[:2].sum(axis=0) + np.array([0, 2]), 5) == [0], "two are in no group"
    assert tellable(np.array([[0, 30], [10, 20]]), np.array([10, 50]), 5) == [0, 1], "none is no small count"


def test_a_cell_that_follows_from_its_row_and_column_is_no_secret() -> None:
    # Every stay is in both attributes. Only the first cell is small, yet telling any other cell tells it.
    table = np.array([[[3, 40], [30, 40]], [[30, 40], [30, 40]]])
    rows, columns, total = table.sum(axis=1), table.sum(axis=0), table.sum(axis=(0, 1))
    assert tellable_pairs(table, rows, columns, total, 5) == []
    # Where as many again have no second attribute, rows and columns say nothing certain.
    told = tellable_pairs(table, rows + 20, columns + 20, total + 80, 5)
    assert told == [(0, 1), (1, 0), (1, 1)]


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 100_000),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    minimum=st.integers(2, 10),
    open_=st.booleans(),
)
def test_pairs_leave_no_small_rest_along_any_line(
    seed: int, shape: tuple[int, int], minimum: int, open_: bool
) -> None:
    rng = np.random.default_rng(seed)
    table = rng.poisson(rng.choice([2.0, 8.0, 40.0], (*shape, 1)), (*shape, 2))
    beside = rng.poisson(12.0, (2, *shape, 2)) if open_ else np.zeros((2, *shape, 2), int)
    rows, columns = table.sum(axis=1) + beside[0].sum(axis=1), table.sum(axis=0) + beside[1].sum(axis=0)
    total = table.sum(axis=(0, 1)) + beside.sum(axis=(0, 1, 2))
    # Only groups that may be told have a row or a column.
    keep_r, keep_c = tellable(rows, total, minimum), tellable(columns, total, minimum)
    table, rows, columns = table[keep_r][:, keep_c], rows[keep_r], columns[keep_c]
    told = tellable_pairs(table, rows, columns, total, minimum)
    shown = np.zeros_like(table)
    for place in told:
        assert large_enough(table[place], minimum)
        shown[place] = table[place]
    assert large_enough(rows - shown.sum(axis=1), minimum)
    assert large_enough(columns - shown.sum(axis=0), minimum)


@st.composite
def sites(draw: st.DrawFn) -> tuple[Scored, int, Members, Members, list[int]]:
    rng = np.random.default_rng(draw(st.integers(0, 100_000)))
    n, bins = draw(st.integers(30, 500)), draw(st.sampled_from([8, 64, 256]))
    minimum = draw(st.integers(2, 8))
    labels = (rng.random(n) < draw(st.floats(0.1, 0.6))).astype(np.float64)
    scores = np.clip(rng.beta(2, 4, n) + 0.1 * labels, 0, 0.999)
    edges = np.arange(1, bins) / bins
    apart = [bins // 4, bins // 2]
    cells = join_small_cells(count_between(labels, scores, edges), minimum, apart)
    if cells is None:
        labels[: n // 2], labels[n // 2 :] = 1.0, 0.0
        cells = join_small_cells(count_between(labels, scores, edges), minimum, apart)
    assert cells is not None
    scored = Scored(labels, scores, cells, np.searchsorted(edges, scores, side="right"))
    names = ("a", "b", "c")
    first, second = (
        Members(names, rng.choice([-1, 0, 1, 2], n, p=rng.dirichlet([0.3, 6, 3, 1]))) for _ in range(2)
    )
    return scored, minimum, first, second, apart


def by_span(cells: ScoreCells, low: int, high: int) -> np.ndarray:
    """Positives and negatives of the cells inside a span of bins."""
    here = (cells.low >= low) & (cells.high <= high)
    return np.array([cells.positives[here].sum(), cells.negatives[here].sum()])


def rests(scored: Scored, told: ToldGroups, whole: ScoreCells) -> list[np.ndarray]:
    """The whole less the groups told, over every span of the groups' cells."""
    cells = [told.cells(scored, group) for group in told.told]
    begins = scored.cells.low[told.begins]
    ends = [*(begins[1:] - 1), scored.cells.high[-1]]
    return [
        by_span(whole, low, high) - sum((by_span(each, low, high) for each in cells), np.zeros(2, int))
        for low, high in zip(begins, ends, strict=True)
    ]


@settings(max_examples=80, deadline=None)
@given(sites())
def test_tables_of_groups_show_no_small_count_and_no_small_difference(
    site: tuple[Scored, int, Members, Members, list[int]],
) -> None:
    scored, minimum, a, b, apart = site
    first, second = (one_attribute(scored, members, minimum, apart) for members in (a, b))
    both = two_attributes(scored, first, second, minimum, apart)
    for told in (first, second, both):
        for group in told.told:
            cells = told.cells(scored, group)
            here = told.members.group == group
            for counts in (cells.positives, cells.negatives):
                assert large_enough(counts, minimum)
            assert cells.total_positives == scored.labels[here].sum()
            assert cells.total_negatives == here.sum() - scored.labels[here].sum()
            assert cells.score_sum is not None
            assert np.isclose(cells.score_sum.sum(), scored.scores[here].sum())
    for told in (first, second):
        for rest in rests(scored, told, scored.cells):
            assert large_enough(rest, minimum)
    # Along each group of the one attribute, over the spans of both.
    for told, position in ((first, 0), (second, 1)):
        for group in told.told:
            part = ToldGroups(
                both.members,
                tuple(each for each in both.told if divmod(each, 3)[position] == group),
                both.begins,
            )
            for rest in rests(scored, part, told.cells(scored, group)):
                assert large_enough(rest, minimum)


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 100_000),
    st.integers(1, 60),
    st.integers(1, 5),
    st.integers(1, 9),
    st.lists(st.integers(0, 60)),
)
def test_runs_are_large_enough_in_every_column(
    seed: int, rows: int, columns: int, minimum: int, apart: list[int]
) -> None:
    table = np.random.default_rng(seed).poisson(1.5, (rows, columns))
    begins = runs(table, minimum, list(dict.fromkeys(apart)))
    if begins is None:
        assert not large_enough(table.sum(axis=0), minimum)
        return
    assert begins[0] == 0
    assert (np.diff(begins) > 0).all()
    assert large_enough(np.add.reduceat(table, begins, axis=0), minimum)
    wanted = next((row for row in apart if 0 < row < rows), None)
    if wanted is not None:  # the most important one is given up only where it cannot be held
        sides = table[:wanted].sum(axis=0), table[wanted:].sum(axis=0)
        assert (wanted in begins) == all(large_enough(side, minimum) for side in sides)
