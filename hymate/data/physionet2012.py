"""PhysioNet/CinC Challenge 2012 to MEDS: 12,000 ICU stays, 48 hours each, one data set per site.

Source: https://physionet.org/content/challenge-2012/1.0.0/ (Silva et al., CinC 2012; ODC-By 1.0).
Protocol, as in STraTS (Tipirneni and Reddy, ACM TKDD 2022):

- rows without a parameter's name are left out; then stays with at most 5 rows, the RecordID row not
  counted, are left out;
- exact duplicates (time, parameter, value) are kept once; negative values are missing;
- Age, Gender, Height and ICUType are static, Weight stays dynamic, its 00:00 value too;
- observations of 00:00 to 48:00 count.

The challenge gives no dates: every admission is at `ADMISSION`, predictions are made 48 hours later.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any, Literal

import polars as pl

from hymate.data.challenge_codes import ICU_TYPES, PARAMETERS, code_table
from hymate.data.challenge_files import (
    HEADER,
    WHERE_FROM,
    Outcome,
    RawSet,
    Record,
    find_sets,
    read_outcomes,
    read_records,
)
from hymate.data.challenge_splits import SplitPlan, leave_out_test_set, split_stays
from hymate.data.meds import write_dataset
from hymate.data.output import MADE_BY, SUMMARY, fresh_folder, refuse_foreign, require_space, write_json
from hymate.data.summary import summarise_sites
from hymate.errors import InputFault

SiteBy = Literal["icu_type", "set", "none"]

ADMISSION = dt.datetime(2000, 1, 1)
HOURS = 48
LEAST_ROWS = 6
MORTALITY = "in_hospital_mortality"
NUMBERS = {"length_of_stay": "days", "saps_i": "saps_i", "sofa": "sofa", "survival": "survival"}
"""Further label sets -> column of the outcomes; a stay without the number has no such label."""
DEATH_RECORDED = "death_recorded"
"""Label set: whether a death is on record at all, in hospital or after it."""
TASKS = (MORTALITY, *NUMBERS, DEATH_RECORDED)

_STATIC = ("Age", "Gender", "Height", "ICUType")
_RECORD_ID = "RecordID"


def prepare_physionet2012(
    raw: Path,
    out: Path,
    *,
    site_by: SiteBy,
    seed: int = 0,
    plan: SplitPlan | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Write `out/<site>/` as MEDS for the sets found in `raw`; returns the figures of summary.json.

    Args:
        raw: folder with `set-a|b|c` (folder, .tar.gz, .tgz or .zip) and their `Outcomes-*.txt`.
        site_by: "icu_type" (coronary_care, cardiac_surgery, medical, surgical), "set" (set_a, ...)
            or "none" (all).
        seed: of the 70 / 10 / 20 split, by subject, stratified by death inside each site.
        plan: another way to split, with its own seed; then `seed` is not used.
        force: replace an older output of this command.

    Raises:
        InputFault: whatever is wrong with `raw` or `out`; nothing is written then.
    """
    refuse_foreign(out, force=force)
    plan = plan or SplitPlan(seed=seed)
    sets = find_sets(raw)
    rows, stays = _read(sets)
    rows, stays, left_out = _apply_protocol(rows, stays)
    before = len(stays)
    stays = leave_out_test_set(stays, plan, raw)
    if len(stays) < before:
        left_out["stays of set-a (the test set is no part of a cross-validation)"] = before - len(stays)
        rows = rows.join(stays, on="subject_id", how="semi", maintain_order="left")
    events = pl.concat([_static_events(rows), _dynamic_events(rows)])
    sites = _sites(events, stays, site_by, plan)
    require_space(out, int(events.estimated_size()))
    figures = {
        name: (tables["events"], tables["splits"], tables[MORTALITY]) for name, tables in sites.items()
    }
    summary = {
        "made_by": f"{MADE_BY} physionet2012",
        "sets": [f"set-{each.letter}" for each in sets],
        "site_by": site_by,
        **plan.figures(),
        "left_out": left_out,
        **summarise_sites(figures),
    }
    with fresh_folder(out, replace=force) as folder:
        for name, tables in sites.items():
            write_dataset(
                folder / name,
                name=name,
                events=tables["events"],
                splits=tables["splits"],
                labels={task: tables[task] for task in TASKS},
                codes=code_table(),
            )
        write_json(folder / SUMMARY, summary)
    return summary


def _read(sets: list[RawSet]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Everything the sets hold, checked but not yet filtered.

    Returns:
        rows: `subject_id`, `minute` Int32, `parameter`, `value` Float64, in each file's order.
        stays: one row a record: `subject_id`, `where` (for messages), `set`, `rank` (place in the set's
            outcomes file), `died`, `days`, `saps_i`, `sofa`, `survival`.
    """
    frames, stays = [], []
    seen: dict[int, str] = {}
    for each in sets:
        records = read_records(each.source)
        outcomes = read_outcomes(each.outcomes)
        rank = {record_id: place for place, record_id in enumerate(outcomes)}
        for record in records:
            if record.record_id not in outcomes:
                what = f"no row for RecordID {record.record_id}, which set-{each.letter} holds"
                raise InputFault(each.outcomes, what, WHERE_FROM)
            if record.record_id in seen:
                what = f"record {record.record_id} is also in set-{seen[record.record_id]}"
                raise InputFault(record.where, what, WHERE_FROM)
            seen[record.record_id] = each.letter
            number = record.record_id
            found = astuple(outcomes[number])
            stays.append((number, record.where, f"set_{each.letter}", rank[number], *found))
        frames.append(_parse(records))
    schema = ("subject_id", "where", "set", "rank", *(field.name for field in fields(Outcome)))
    table = pl.DataFrame(stays, schema=schema, orient="row")
    return pl.concat(frames), table.with_columns(pl.col(*NUMBERS.values()).cast(pl.Float32))


def _parse(records: list[Record]) -> pl.DataFrame:
    """The records' rows as a table, or an InputFault naming the first row that is none."""
    text = pl.DataFrame(
        {
            "subject_id": [record.record_id for record in records],
            "row": [record.body for record in records],
        }
    )
    text = text.with_columns(pl.col("row").str.split("\n")).explode("row", empty_as_null=True)
    field = pl.col("row").str.slice(6).str.split_exact(",", 1)
    rows = text.select(
        "subject_id",
        minute=60 * pl.col("row").str.slice(0, 2).cast(pl.Int32, strict=False)
        + pl.col("row").str.slice(3, 2).cast(pl.Int32, strict=False),
        parameter=field.struct.field("field_0"),
        value=field.struct.field("field_1").cast(pl.Float64, strict=False),
    )
    malformed = text.select(~pl.col("row").str.contains(r"^\d\d:[0-5]\d,[^,]*,[^,]+$")).to_series()
    malformed |= ~rows["value"].is_finite().fill_null(False)
    _refuse(records, text, malformed, f"is not {HEADER} (HH:MM, name, number)")
    known = [*PARAMETERS, *_STATIC, _RECORD_ID, ""]
    _refuse(records, text, ~rows["parameter"].is_in(known), "has a parameter the challenge does not know")
    impossible = rows.select(
        ((pl.col("parameter") == "Gender") & ~pl.col("value").is_in([-1.0, 0.0, 1.0]))
        | ((pl.col("parameter") == "ICUType") & ~pl.col("value").is_in([-1.0, 1.0, 2.0, 3.0, 4.0]))
        | ((pl.col("parameter") == _RECORD_ID) & (pl.col("value") != pl.col("subject_id")))
    ).to_series()
    _refuse(records, text, impossible, "has an impossible value")
    return rows


def _refuse(records: list[Record], text: pl.DataFrame, wrong: pl.Series, what: str) -> None:
    if not wrong.any():
        return
    position = wrong.arg_max() or 0
    subject, row = text.row(position)
    start = text["subject_id"].index_of(subject) or 0
    where = next(record.where for record in records if record.record_id == subject)
    # The header is line 1.
    raise InputFault(where, f"line {position - start + 2}: {row[:80]!r} {what}", WHERE_FROM)


def _apply_protocol(
    rows: pl.DataFrame, stays: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, int]]:
    """Leave out what the protocol leaves out, and count it by reason."""
    left_out: dict[str, int] = {}

    def keep(reason: str, condition: pl.Expr) -> None:
        nonlocal rows
        before = len(rows)
        rows = rows.filter(condition)
        left_out[reason] = before - len(rows)

    keep("rows without a parameter", pl.col("parameter") != "")
    rows = rows.filter(pl.col("parameter") != _RECORD_ID)
    enough = rows.group_by("subject_id").len().filter(pl.col("len") >= LEAST_ROWS)
    left_out[f"stays with fewer than {LEAST_ROWS} rows"] = len(stays) - len(enough)
    rows, stays = (table.join(enough, on="subject_id", how="semi") for table in (rows, stays))
    keep("exact duplicates", pl.struct("subject_id", "minute", "parameter", "value").is_first_distinct())
    dynamic = ~pl.col("parameter").is_in(_STATIC)
    keep("static values missing (negative)", dynamic | (pl.col("value") >= 0))
    keep("dynamic values missing (negative)", ~dynamic | (pl.col("value") >= 0))
    keep(f"observations after {HOURS} h", ~dynamic | (pl.col("minute") <= 60 * HOURS))
    return rows, stays, left_out


def _static_events(rows: pl.DataFrame) -> pl.DataFrame:
    """AGE, HEIGHT with their numbers; GENDER//F|M, ICU_TYPE//... without one; no time; no row if missing."""
    static = rows.filter(pl.col("parameter").is_in(_STATIC)).unique(
        ["subject_id", "parameter"], keep="first", maintain_order=True
    )
    number = pl.when(pl.col("parameter").is_in(["Age", "Height"])).then(pl.col("value"))
    category = pl.col("value").cast(pl.Int32)
    genders = {0: "GENDER//F", 1: "GENDER//M"}
    units = {number: f"ICU_TYPE//{name}" for number, name in ICU_TYPES.items()}
    code = (
        pl.when(pl.col("parameter") == "Gender")
        .then(category.replace_strict(genders, default=None, return_dtype=pl.String))
        .when(pl.col("parameter") == "ICUType")
        .then(category.replace_strict(units, default=None, return_dtype=pl.String))
        .otherwise(pl.col("parameter").str.to_uppercase())
    )
    return static.select(
        "subject_id", time=pl.lit(None, pl.Datetime("us")), code=code, numeric_value=number.cast(pl.Float32)
    )


def _dynamic_events(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.filter(~pl.col("parameter").is_in(_STATIC)).select(
        "subject_id",
        time=pl.lit(ADMISSION, pl.Datetime("us")) + pl.duration(minutes=pl.col("minute")),
        code=pl.col("parameter"),
        numeric_value=pl.col("value").cast(pl.Float32),
    )


def _sites(
    events: pl.DataFrame, stays: pl.DataFrame, site_by: SiteBy, plan: SplitPlan
) -> dict[str, dict[str, pl.DataFrame]]:
    """Site -> its tables `events`, `splits` and one per task."""
    stays = stays.with_columns(
        site=_site(events, stays, site_by),
        prediction_time=pl.lit(ADMISSION + dt.timedelta(hours=HOURS), pl.Datetime("us")),
    )
    splits = split_stays(stays, plan)
    sites = {}
    for name in sorted(stays["site"].unique()):
        members = stays.filter(pl.col("site") == name)
        keys = members.select("subject_id", "prediction_time")
        numbers = {
            task: keys.with_columns(float_value=members[column]).drop_nulls("float_value")
            for task, column in NUMBERS.items()
        }
        sites[name] = {
            "events": events.join(members, on="subject_id", how="semi"),
            "splits": splits.join(members, on="subject_id", how="semi"),
            MORTALITY: keys.with_columns(boolean_value=members["died"]),
            DEATH_RECORDED: keys.with_columns(boolean_value=members["survival"].is_not_null()),
            **numbers,
        }
    return sites


def _site(events: pl.DataFrame, stays: pl.DataFrame, site_by: SiteBy) -> pl.Series:
    """The site's name for each of `stays`."""
    if site_by == "none":
        return pl.Series(["all"]).new_from_index(0, len(stays))
    if site_by == "set":
        return stays["set"]
    prefix = "ICU_TYPE//"
    units = events.filter(pl.col("code").str.starts_with(prefix))
    names = stays.join(units, on="subject_id", how="left", maintain_order="left")["code"]
    if names.null_count():
        where = stays["where"][names.is_null().arg_max() or 0]
        raise InputFault(where, "has no ICUType", "choose the sites by set, or none (--site-by)")
    return names.str.strip_prefix(prefix)
