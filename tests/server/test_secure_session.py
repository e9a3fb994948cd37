"""Both halves of a sum: its value, what the coordinator sees of one site, dropouts at every stage."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from strategies.secure import ring
from strategies.secure.contents import Rings, SiteRound, round_of, round_vector
from strategies.secure.keys import NotOpened
from strategies.secure.ring import Vector
from tests.secure_sums import STAGES, SecureSum, hospitals

RNG = np.random.default_rng(5)


def _vectors(names: Mapping[str, object], size: int = 8) -> dict[str, Vector]:
    return {
        name: {
            "update": RNG.integers(0, 2**32, size, np.uint32),
            "figures": RNG.integers(0, 2**64, 3, np.uint64),
        }
        for name in names
    }


def _plain(vectors: Mapping[str, Vector], names: tuple[str, ...]) -> Vector:
    total = vectors[names[0]]
    for name in names[1:]:
        total = ring.added(total, vectors[name])
    return total


@settings(max_examples=12, deadline=None)
@given(sites=st.integers(2, 7), drop=st.integers(0, 3), stage=st.sampled_from(STAGES[1:]), data=st.data())
def test_the_sum_is_the_survivors_with_as_many_dropouts_as_are_tolerated(
    sites: int, drop: int, stage: str, data: st.DataObject
) -> None:
    threshold = data.draw(st.integers(sites // 2 + 1, sites))
    drop = min(drop, sites - threshold)
    with tempfile.TemporaryDirectory() as folder:
        names = hospitals(Path(folder), sites)
        gone = dict.fromkeys(sorted(names)[:drop], stage)
        vectors = _vectors(names)
        run = SecureSum(names, max(threshold, 2), gone)
        total = run.run(vectors)
        staying = [name for name in sorted(names) if name not in gone or stage == "unmask"]
        assert run.session.survivors == tuple(staying)
        for part, expected in _plain(vectors, tuple(staying)).items():
            np.testing.assert_array_equal(total[part], expected)


@pytest.mark.parametrize("sites", [2, 4, 9])
def test_the_mean_of_a_round_is_the_weighted_mean_to_the_error_stated(sites: int, tmp_path: Path) -> None:
    names = hospitals(tmp_path, sites)
    received = {"b": RNG.normal(size=7).astype(np.float32), "a": RNG.normal(size=(3, 4)).astype(np.float32)}
    rings = Rings(sites, 32, 0.5, 40.0)
    rounds = {
        name: SiteRound(
            {key: array + RNG.uniform(-0.4, 0.4, array.shape) for key, array in received.items()},
            weight=float(RNG.integers(1, 41)),
            stays=int(RNG.integers(1, 99)),
            loss=float(RNG.uniform(0, 2)),
        )
        for name in names
    }
    vectors = {name: round_vector(found, received, rings, 0) for name, found in rounds.items()}
    found = round_of(SecureSum(names, sites // 2 + 1).run(vectors), received, rings, 0)
    weight = sum(each.weight for each in rounds.values())
    worst = sites / 2 * 0.5 / ((1 << 30) // sites) * 40.0 / weight
    assert found.weight == pytest.approx(weight)
    for key in received:
        mean = sum(each.trained[key] * each.weight for each in rounds.values()) / weight
        assert np.abs(found.shared[key] - mean).max() <= worst + 2e-7
    stays = sum(each.stays for each in rounds.values())
    loss = sum(each.loss * each.stays for each in rounds.values()) / stays
    assert found.loss == pytest.approx(loss, abs=1e-6)
    assert found.forecast_error is None


def test_beyond_the_range_a_change_is_clipped(tmp_path: Path) -> None:
    names = hospitals(tmp_path, 3)
    received = {"a": np.zeros(2, np.float32)}
    rings = Rings(3, 32, 0.25, 1.0)
    far = SiteRound({"a": np.array([9.0, -9.0], np.float32)}, 1.0)
    vectors = {name: round_vector(far, received, rings, 0) for name in names}
    found = round_of(SecureSum(names, 2).run(vectors), received, rings, 0)
    np.testing.assert_allclose(found.shared["a"], [0.25, -0.25], atol=1e-6)


def _p_value(numbers: ring.Residues) -> float:
    """Chi-square of bytes against uniform ones."""
    return float(chisquare(np.bincount(numbers.view(np.uint8), minlength=256)).pvalue)


def test_what_the_coordinator_sees_of_one_site_is_uniform(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Zeros are sent, which no chance makes uniform; and once one mask is missing, the test says so."""
    names = hospitals(tmp_path / "masked", 3)
    zeros: Vector = {"update": np.zeros(2**15, np.uint32), "figures": np.zeros(2**12, np.uint64)}
    run = SecureSum(names, 2, {"h02": "masked"})
    total = run.run(dict.fromkeys(names, zeros))
    for vector in run.transcript.values():
        for part in vector.values():
            assert _p_value(part) > 1e-4
    assert not total["update"].any()
    # Even with the masks that sites have in common gone, as where all others are the coordinator's, the
    # site's own mask still hides it; and with all gone, nothing does.
    own = ring.masked(zeros, "h00", b"s" * 32, {})
    assert _p_value(own["update"]) > 1e-4
    monkeypatch.setattr(ring, "mask", lambda seed, like: {name: like[name] * 0 for name in like})
    bare = SecureSum(hospitals(tmp_path / "bare", 3), 2)
    bare.run(dict.fromkeys(names, zeros))
    assert _p_value(bare.transcript["h00"]["update"]) < 1e-12


def test_a_late_vector_stays_hidden_after_the_others_gave_its_key(tmp_path: Path) -> None:
    """The coordinator has all it may have of a site that was given up, and its numbers, which came late."""
    names = hospitals(tmp_path, 4)
    vectors = {name: {"update": np.zeros(2**14, np.uint32)} for name in names}
    run = SecureSum(names, 3, {"h03": "masked"})
    run.run(vectors)
    late = run.mask("h03", vectors["h03"])
    key = run.session._key_of("h03")
    agreed = run.shares_request.terms.keys
    for name in sorted(names)[:3]:
        common = ring.mask(key.seed_with(agreed[name].masks), late)
        late = ring.added(late, common, -1 if name > "h03" else 1)
    assert _p_value(late["update"]) > 1e-4


def test_shares_that_do_not_fit_open_nothing(tmp_path: Path) -> None:
    names = hospitals(tmp_path, 3)
    run = SecureSum(names, 2, {"h02": "masked"})
    run.run(_vectors(names))
    reply = run.session._unmasking["h00"]
    forged = reply.model_copy(update={"keys": {"h02": "00" * (len(reply.keys["h02"]) // 2)}})
    run.session._unmasking["h00"] = forged
    with pytest.raises(NotOpened):
        run.session.total()


def test_a_vector_of_another_shape_does_not_count(tmp_path: Path) -> None:
    run = SecureSum(hospitals(tmp_path, 3), 2)
    run.keys()
    run.shares()
    for wrong in ({"update": np.zeros(4, np.uint64)}, {"other": np.zeros(4, np.uint32)}, {}):
        assert run.session.took_masked("h00", wrong, {"update": (4, "uint32")}) is not None
    assert run.session.survivors == ()
