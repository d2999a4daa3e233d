"""Whether a text is exactly one SELECT that reads tables and does nothing else; and its own words for it.

What is run is written anew from the parsed tree, so that no database reads the text otherwise than it was checked.
Functions are those that sqlglot knows and a list of harmless ones: among the others are those that read files, sleep,
run other texts or reach other servers.
"""

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

MAX_NODES = 3000
FORBIDDEN = (exp.DML, exp.DDL, exp.Command, exp.Into, exp.Lock, exp.Set, exp.Pragma)
HARMLESS = frozenset(
    "abs age ascii bit_length btrim ceil char changes char_length chr concat concat_ws cot date_bin datetime "
    "degrees div factorial gcd glob hex initcap instr isfinite iif json json_array json_each "
    "json_extract json_group_array json_group_object json_object json_tree json_type json_valid julianday "
    "justify_days lcm left length likely lower lpad ltrim make_date make_interval make_time make_timestamp md5 "
    "mod nullif octet_length overlay position pi quote radians regexp_count regexp_instr regexp_match "
    "regexp_matches regexp_substr reverse right round rpad rtrim scale sign split_part starts_with strftime "
    "strpos substr substring substring_index time timediff to_char to_date to_hex to_number to_timestamp total "
    "translate trim trim_scale trunc typeof unicode unixepoch unlikely upper width_bucket cume_dist dense_rank "
    "first_value lag last_value lead nth_value ntile percent_rank rank row_number array_length array_position "
    "cardinality unnest jsonb_array_elements jsonb_array_elements_text jsonb_array_length jsonb_each "
    "jsonb_each_text jsonb_extract_path jsonb_extract_path_text jsonb_object_keys jsonb_path_query "
    "jsonb_typeof json_array_elements json_array_length json_object_keys json_typeof row_to_json to_json "
    "to_jsonb string_to_array array_to_string corr covar_pop covar_samp regr_slope regr_intercept regr_r2 mode "
    "percentile_cont percentile_disc every bool_and bool_or bit_and bit_or string_agg array_agg json_agg "
    "jsonb_agg grouping isnull localtimestamp to_tsvector to_tsquery plainto_tsquery websearch_to_tsquery "
    "ts_rank similarity".split()
)


class NotOneSelect(ValueError):
    """What keeps the text from being run."""


def one_select(text: str, dialect: str) -> str:
    """The statement in `dialect` (``sqlite`` or ``postgres``), written anew.

    Raises:
        NotOneSelect: it is something else; the message says what.
    """
    try:
        found = [part for part in sqlglot.parse(text, dialect=dialect) if part is not None]
    except (SqlglotError, RecursionError) as error:
        raise NotOneSelect(f"it is not understood as SQL ({_first_line(error)})") from None
    except Exception as error:  # a parser of anybody's text: what it stumbles over is not run, whatever it raises
        raise NotOneSelect(f"it is not understood as SQL ({type(error).__name__})") from None
    if len(found) != 1:
        raise NotOneSelect(f"it has {len(found)} statements; one SELECT is run at a time")
    (statement,) = found
    if not isinstance(statement, exp.Query):
        raise NotOneSelect(f"it is {_kind(statement)}; only SELECT is run")
    for count, node in enumerate(statement.walk()):
        if count > MAX_NODES:
            raise NotOneSelect("it is too long")
        _check(node)
    try:
        return statement.sql(dialect=dialect, comments=False)
    except (SqlglotError, RecursionError) as error:
        raise NotOneSelect(f"it cannot be written for this database ({_first_line(error)})") from None


def _check(node: exp.Expr) -> None:
    if isinstance(node, FORBIDDEN):
        raise NotOneSelect(f"it contains {_kind(node)}; only SELECT is run")
    if isinstance(node, exp.CTE) and not isinstance(node.this, exp.Query):
        raise NotOneSelect(f"its WITH contains {_kind(node.this)}; only SELECT is run")
    if isinstance(node, exp.Anonymous) and node.name.casefold() not in HARMLESS:
        raise NotOneSelect(f"the function {node.name[:60]} is not among those that may be used")
    if isinstance(node, exp.Format):
        raise NotOneSelect("the function format is not among those that may be used")
    if isinstance(node, exp.Dot) and isinstance(node.expression, exp.Func):
        raise NotOneSelect("functions are called by their plain names")
    if isinstance(node, exp.Parameter | exp.Placeholder):
        raise NotOneSelect("it has a placeholder; write the value")


def _kind(node: object) -> str:
    return type(node).__name__.upper() if not isinstance(node, exp.Command) else str(node.this)[:30].upper()


def _first_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
