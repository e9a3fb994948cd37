"""What a study evaluates beyond the whole: groups of patients, and the operating point."""

from __future__ import annotations

import math
from itertools import combinations, pairwise
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from hymate.frozen import Count, Frozen

Name = Annotated[str, Field(pattern=r"^[^&]{1,64}$")]


class AttributeConfig(Frozen):
    """Something static by which patients are told apart; its values are the groups.

    Written as `GENDER` alone, it is the static codes `GENDER//F`, `GENDER//M`, ...; a static code without
    values (`DIABETES`) parts those who have it from the others. With `cuts` it is bands of a number.
    """

    code: Name
    """Static code, or what static codes begin with before `//`."""
    name: Name | None = None
    """What the report calls it; the code where nothing else is said."""
    cuts: tuple[float, ...] = ()
    """Numbers at which bands begin: AGE with cuts [45, 65] has bands <45, 45-<65 and 65+."""

    @model_validator(mode="before")
    @classmethod
    def _from_word(cls, value: Any) -> Any:
        return {"code": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _cuts_ascend(self) -> AttributeConfig:
        if not all(math.isfinite(cut) for cut in self.cuts) or any(a >= b for a, b in pairwise(self.cuts)):
            raise ValueError(f"cuts of {self.code} must be finite numbers that ascend")
        return self

    @property
    def label(self) -> str:
        return self.name or self.code


class OperatingPointConfig(Frozen):
    """Where a score counts as an alarm; exactly one key. All but `threshold` are fixed on tuning stays."""

    sensitivity: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """The highest threshold that finds this share of the positives."""
    specificity: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """The lowest threshold that spares this share of the negatives."""
    best: Literal["youden", "min_se_ppv"] | None = None
    """Largest sensitivity + specificity, or largest min(sensitivity, predictive value)."""
    threshold: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """This probability."""

    @model_validator(mode="after")
    def _one(self) -> OperatingPointConfig:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                "operating_point: give exactly one of sensitivity, specificity, best, threshold "
                f"(given: {', '.join(given) or 'none'})"
            )
        return self


class EvaluationConfig(Frozen):
    """What the report compares."""

    local_baseline: bool = False
    """Also train every site by itself, on the same budget, and report it on the same held-out stays."""
    leave_one_site_out: bool = False
    """Also train without each site in turn, vocabulary and early stopping included, and test on it."""
    cross_site_matrix: bool = False
    """Also score each site's own model at every other site. Such a model leaves its site only where the
    site's `policy.share_own_model` says so. Needs `local_baseline`."""
    pooled_baseline: bool = False
    """Also train one model on all sites' stays at one place. Only in a simulation."""
    operating_point: OperatingPointConfig = OperatingPointConfig(sensitivity=0.8)
    groups: tuple[AttributeConfig, ...] = ()
    """Attributes by which the figures are also told: `[GENDER, {code: AGE, cuts: [45, 65, 80]}]`."""
    intersections: bool | tuple[tuple[Name, Name], ...] = False
    """Groups of two attributes together: true for all pairs, or the pairs by name."""
    min_group: Count = 10
    """A group with fewer positives or fewer negatives over all sites is counted, and given no figures. What a
    site tells of a group at all is for the site's own minimum to say."""

    @model_validator(mode="after")
    def _matrix_of_own_models(self) -> EvaluationConfig:
        if self.cross_site_matrix and not self.local_baseline:
            raise ValueError("cross_site_matrix scores the sites' own models: set local_baseline to true")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> EvaluationConfig:
        labels = [attribute.label for attribute in self.groups]
        if len(set(labels)) < len(labels):
            raise ValueError("groups: each name once")
        for pair in self.intersections if isinstance(self.intersections, tuple) else ():
            unknown = [label for label in pair if label not in labels]
            if unknown or pair[0] == pair[1]:
                known = ", ".join(labels) or "none"
                raise ValueError(f"intersections: {' and '.join(pair)} are not two of groups ({known})")
        return self

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """The pairs of attributes whose intersections are asked for."""
        if isinstance(self.intersections, tuple):
            return self.intersections
        labels = [attribute.label for attribute in self.groups]
        return tuple(combinations(labels, 2)) if self.intersections else ()
