"""Configuration files: TOML with stellar-core's keys, as raw values, sources and warnings."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from stellar_overlay.config_nodes import MAX_QUORUM_DEPTH, QUALITIES, QuorumSet, Validator
from stellar_overlay.config_rules import TEXTS, shown, whole
from stellar_overlay.error import ConfigError

_FROM_FILE = "$FILE:"
_POSTGRESQL = "postgresql://"
_PERCENT = whole(1, 100)
_DEFAULT_PERCENT = 67
_HOME_DOMAIN_KEYS = ("HOME_DOMAIN", "QUALITY")
_VALIDATOR_KEYS = ("NAME", "PUBLIC_KEY", "ADDRESS", "HISTORY", *_HOME_DOMAIN_KEYS)


@dataclass(kw_only=True)
class Loaded:
    """What files say: values and their sources by key, and one-line warnings."""

    values: dict[str, object]
    sources: dict[str, str]
    warnings: list[str]


class _Entry(NamedTuple):
    """A key of a file. ``where`` begins what is said about it."""

    key: str
    value: object
    path: Path

    @property
    def where(self) -> str:
        return f"{self.path}: {self.key}"


def load(paths: Iterable[str | os.PathLike[str]], keys: Collection[str]) -> Loaded:
    """Read TOML files; of a key that several have, the last one counts.

    Single values are returned as they are, for the rules of the table to judge; tables and
    references to other files are resolved here.

    :param keys: those that mean something here.
    :raises ConfigError: naming file and key, when a file cannot be read or understood.
    """
    entries = {
        key: _Entry(key, value, path)
        for path in map(Path, paths)
        for key, value in _read(path).items()
    }
    loaded = Loaded(
        values={key: entry.value for key, entry in entries.items() if key in keys},
        sources={key: str(entry.path) for key, entry in entries.items() if key in keys},
        warnings=_strangers(entries.values(), {*keys, "HOME_DOMAINS"}),
    )
    for key in {"NODE_SEED", "DATABASE"} & entries.keys():
        loaded.values[key] = _resolve_secret(entries[key])
    if "QUORUM_SET" in entries:
        entry = entries["QUORUM_SET"]
        loaded.values["QUORUM_SET"] = _quorum_set(entry.where, entry.value)
    if "VALIDATORS" in entries:
        _add_validators(loaded, entries["VALIDATORS"], entries.get("HOME_DOMAINS"))
    _warn_of_postgresql(loaded)
    _warn_of_validator_key(loaded)
    return loaded


def _read(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from None


def _strangers(entries: Iterable[_Entry], keys: Collection[str]) -> list[str]:
    """Return a warning for each key that nobody knows, and one for all that only core knows."""
    strange = [entry for entry in entries if entry.key not in keys]
    ignored = sorted(entry.key for entry in strange if entry.key in _CORE_KEYS)
    warnings = [
        _unknown(f"{entry.path}", entry.key, (*keys, *_CORE_KEYS))
        for entry in strange
        if entry.key not in _CORE_KEYS
    ]
    if ignored:
        warnings.append(
            f"ignored what does not concern an overlay ({len(ignored)}): {', '.join(ignored)}"
        )
    return warnings


def _unknown(where: str, key: str, known: Collection[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(key.upper(), known, n=1)
    if near:
        hint = f"did you mean {near[0]}?"
    else:
        closest = get_close_matches(key.upper(), known, n=1, cutoff=0)[0]
        hint = f"the closest known key is {closest}"
    return f"{where}: unknown key {_one_line(key)} is ignored; {hint}"


def _one_line(key: str) -> str:
    """Return a key of TOML, which in quotes may be any text, with its line breaks escaped."""
    return shown(key)[1:-1]


def _resolve_secret(entry: _Entry) -> object:
    """Return the value, or the text of the file that ``$FILE:path`` names.

    As in core (SecretManager.cpp:34-75) only its owner may have access to the file. Unlike there
    the public network is no exception. A relative path is looked up beside the configuration
    file, then, which is all that core does, in the working directory.
    """
    if not isinstance(entry.value, str) or not entry.value.startswith(_FROM_FILE):
        return entry.value
    named = Path(entry.value.removeprefix(_FROM_FILE))
    try:
        beside = entry.path.parent / named
        path = beside if beside.exists() else named
        return _read_secret(path)
    except OSError as error:
        raise ConfigError(f"{entry.where}: {named} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{entry.where}: {named} {error}") from None


def _read_secret(path: Path) -> str:
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise ValueError("is not a regular file")
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ValueError("must not be accessible by group or others (chmod 600)")
    text = path.read_text(errors="replace").strip()
    if not text:
        raise ValueError("is empty")
    return text


def _quorum_set(where: str, table: object, depth: int = 0) -> QuorumSet:
    """Read core's nested tables (Config.cpp:588-665); nodes are still as written."""
    if not isinstance(table, dict):
        raise ConfigError(f"{where} must be a table, not {shown(table)}")
    if depth > MAX_QUORUM_DEPTH:
        raise ConfigError(f"{where}: at most {MAX_QUORUM_DEPTH} levels of inner sets")
    inner_sets = dict(table)
    percent = inner_sets.pop("THRESHOLD_PERCENT", _DEFAULT_PERCENT)
    validators = inner_sets.pop("VALIDATORS", [])
    try:
        return QuorumSet.of_percent(
            _PERCENT.check(f"{where} THRESHOLD_PERCENT", percent),
            TEXTS.check(f"{where} VALIDATORS", validators),
            [
                _quorum_set(f"{where}.{_one_line(key)}", inner, depth + 1)
                for key, inner in inner_sets.items()
            ],
        )
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None


def _add_validators(loaded: Loaded, entry: _Entry, home_domains: _Entry | None) -> None:
    """Read VALIDATORS; add the addresses to the preferred or known peers (Config.cpp:816-826)."""
    qualities = _qualities(home_domains, loaded.warnings) if home_domains else {}
    validators = [
        _validator(where, table, qualities)
        for where, table in _tables(entry, _VALIDATOR_KEYS, loaded.warnings)
    ]
    loaded.values["VALIDATORS"] = validators
    own_domain = loaded.values.get("NODE_HOME_DOMAIN")
    for key, is_ours in (("PREFERRED_PEERS", True), ("KNOWN_PEERS", False)):
        addresses = [
            v.address for v in validators if v.address and (v.home_domain == own_domain) is is_ours
        ]
        written = loaded.values.get(key, [])
        if addresses and isinstance(written, list):
            loaded.values[key] = [*written, *addresses]
            sources = [loaded.sources[key]] if key in loaded.sources else []
            loaded.sources[key] = " and ".join([*sources, f"VALIDATORS of {entry.path}"])


def _qualities(entry: _Entry, warnings: list[str]) -> dict[str, str]:
    qualities = {}
    for where, table in _tables(entry, _HOME_DOMAIN_KEYS, warnings):
        quality = table.get("QUALITY")
        if quality not in QUALITIES:
            names = ", ".join(QUALITIES)
            raise ConfigError(f"{where}: QUALITY must be one of {names}, not {shown(quality)}")
        qualities[str(table.get("HOME_DOMAIN"))] = str(quality)
    return qualities


def _validator(where: str, table: Mapping[str, Any], qualities: Mapping[str, str]) -> Validator:
    """Read one entry; one without QUALITY, which core refuses, counts as LOW."""
    home_domain = table.get("HOME_DOMAIN", "")
    try:
        return Validator(
            public_key=table.get("PUBLIC_KEY", ""),
            home_domain=home_domain,
            name=table.get("NAME", ""),
            quality=table.get("QUALITY", qualities.get(str(home_domain), "LOW")),
            address=table.get("ADDRESS", ""),
        )
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _tables(
    entry: _Entry, keys: Collection[str], warnings: list[str]
) -> Iterable[tuple[str, dict[str, Any]]]:
    """Yield each table of an array, and what begins messages about it; warn of unknown keys."""
    tables = entry.value
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ConfigError(f"{entry.where} must be tables, [[{entry.key}]], not {shown(tables)}")
    for number, table in enumerate(tables, start=1):
        where = f"{entry.where}, entry {number}"
        warnings += [_unknown(where, key, keys) for key in table if key not in keys]
        yield where, table


def _warn_of_postgresql(loaded: Loaded) -> None:
    """Fall back to our own file, and never show the URL, which may hold a password."""
    database = loaded.values.get("DATABASE")
    if isinstance(database, str) and database.startswith(_POSTGRESQL):
        del loaded.values["DATABASE"]
        loaded.warnings.append(
            f"{loaded.sources.pop('DATABASE')}: DATABASE: {_POSTGRESQL} is not supported yet, "
            "so our default file is used"
        )


def _warn_of_validator_key(loaded: Loaded) -> None:
    if "NODE_SEED" in loaded.values and loaded.values.get("NODE_IS_VALIDATOR") is True:
        loaded.warnings.append(
            f"{loaded.sources['NODE_SEED']}: NODE_SEED is the key of a validator "
            "(NODE_IS_VALIDATOR=true), and two nodes with one key refuse each other: give this "
            "node a key of its own with --seed-file"
        )


# The keys of core (Config.cpp:1129-2019) that do not concern an overlay.
_CORE = """
APPLY_LOAD_BATCH_SAC_COUNT APPLY_LOAD_BL_BATCH_SIZE APPLY_LOAD_BL_LAST_BATCH_LEDGERS
APPLY_LOAD_BL_LAST_BATCH_SIZE APPLY_LOAD_BL_SIMULATED_LEDGERS APPLY_LOAD_BL_WRITE_FREQUENCY
APPLY_LOAD_CLASSIC_TXS_PER_LEDGER APPLY_LOAD_EVENT_COUNT APPLY_LOAD_EVENT_COUNT_DISTRIBUTION
APPLY_LOAD_LEDGER_MAX_DEPENDENT_TX_CLUSTERS APPLY_LOAD_LEDGER_MAX_DISK_READ_BYTES
APPLY_LOAD_LEDGER_MAX_DISK_READ_LEDGER_ENTRIES APPLY_LOAD_LEDGER_MAX_INSTRUCTIONS
APPLY_LOAD_LEDGER_MAX_WRITE_BYTES APPLY_LOAD_LEDGER_MAX_WRITE_LEDGER_ENTRIES
APPLY_LOAD_MAX_CONTRACT_EVENT_SIZE_BYTES APPLY_LOAD_MAX_LEDGER_TX_SIZE_BYTES
APPLY_LOAD_MAX_SAC_TPS_MAX_TPS APPLY_LOAD_MAX_SAC_TPS_MIN_TPS APPLY_LOAD_MAX_SOROBAN_TX_COUNT
APPLY_LOAD_MAX_TX_SIZE_BYTES APPLY_LOAD_MODE APPLY_LOAD_MODEL_TX APPLY_LOAD_NUM_LEDGERS
APPLY_LOAD_TARGET_CLOSE_TIME_MS APPLY_LOAD_TIME_WRITES APPLY_LOAD_TX_MAX_DISK_READ_BYTES
APPLY_LOAD_TX_MAX_DISK_READ_LEDGER_ENTRIES APPLY_LOAD_TX_MAX_FOOTPRINT_SIZE
APPLY_LOAD_TX_MAX_INSTRUCTIONS APPLY_LOAD_TX_MAX_WRITE_BYTES APPLY_LOAD_TX_MAX_WRITE_LEDGER_ENTRIES
ARTIFICIALLY_ACCELERATE_TIME_FOR_TESTING ARTIFICIALLY_DELAY_BUCKET_APPLICATION_FOR_TESTING
ARTIFICIALLY_DELAY_LEDGER_CLOSE_FOR_TESTING ARTIFICIALLY_DELAY_NOMINATION_EMIT_FOR_TESTING
ARTIFICIALLY_GENERATE_LOAD_FOR_TESTING ARTIFICIALLY_REPLAY_WITH_NEWEST_BUCKET_LOGIC_FOR_TESTING
ARTIFICIALLY_SET_SYSTEM_CLOCK_OFFSET_FOR_TESTING ARTIFICIALLY_SLEEP_MAIN_THREAD_FOR_TESTING
AUTOMATIC_MAINTENANCE_COUNT AUTOMATIC_MAINTENANCE_PERIOD AUTOMATIC_SELF_CHECK_PERIOD
BACKFILL_RESTORE_META BACKFILL_STELLAR_ASSET_EVENTS BACKGROUND_EVICTION_SCAN
BACKGROUND_OVERLAY_PROCESSING BACKGROUND_TX_SIG_VERIFICATION BUCKETLIST_DB_INDEX_CUTOFF
BUCKETLIST_DB_INDEX_PAGE_SIZE_EXPONENT BUCKETLIST_DB_MEMORY_FOR_CACHING BUCKETLIST_DB_PERSIST_INDEX
BUCKET_DIR_PATH CATCHUP_COMPLETE CATCHUP_RECENT CATCHUP_SKIP_KNOWN_RESULTS_FOR_TESTING
CATCHUP_WAIT_MERGES_TX_APPLY_FOR_TESTING COMMANDS COMPILATION_THREADS
DISABLE_SOROBAN_METRICS_FOR_TESTING DISABLE_TX_META_FOR_TESTING DISABLE_XDR_FSYNC
EMIT_CLASSIC_EVENTS EMIT_LEDGER_CLOSE_META_EXT_V1 EMIT_SOROBAN_TRANSACTION_META_EXT_V1
ENABLE_DIAGNOSTICS_FOR_TX_SUBMISSION ENABLE_SOROBAN_DIAGNOSTIC_EVENTS ENTRY_CACHE_SIZE
EXCLUDE_TRANSACTIONS_CONTAINING_OPERATION_TYPE EXPERIMENTAL_BACKGROUND_TX_SIG_VERIFICATION
EXPERIMENTAL_PARALLEL_LEDGER_APPLY EXPERIMENTAL_PARALLEL_TX_SET_DOWNLOAD
EXPERIMENTAL_TX_BATCH_MAX_SIZE FAILURE_SAFETY FILTERED_G_ADDRESSES FILTERED_SOROBAN_KEYS_PATH
FORCE_OLD_STYLE_LEADER_ELECTION FORCE_OLD_STYLE_PREPARE_START_TRIGGER_TIMER
GENESIS_TEST_ACCOUNT_COUNT HALT_ON_INTERNAL_TRANSACTION_ERROR HISTOGRAM_WINDOW_SIZE HISTORY
HTTP_MAX_CLIENT HTTP_QUERY_PORT IGNORE_MESSAGE_LIMITS_FOR_TESTING INVARIANT_CHECKS
INVARIANT_EXTRA_CHECKS LOADGEN_BYTE_COUNT_DISTRIBUTION_FOR_TESTING LOADGEN_BYTE_COUNT_FOR_TESTING
LOADGEN_INSTRUCTIONS_DISTRIBUTION_FOR_TESTING LOADGEN_INSTRUCTIONS_FOR_TESTING
LOADGEN_IO_KILOBYTES_DISTRIBUTION_FOR_TESTING LOADGEN_IO_KILOBYTES_FOR_TESTING
LOADGEN_MEASURE_TX_E2E_LATENCY_FOR_TESTING LOADGEN_NUM_DATA_ENTRIES_DISTRIBUTION_FOR_TESTING
LOADGEN_NUM_DATA_ENTRIES_FOR_TESTING LOADGEN_PREGENERATED_TRANSACTIONS_FILE
LOADGEN_TX_SIZE_BYTES_DISTRIBUTION_FOR_TESTING LOADGEN_TX_SIZE_BYTES_FOR_TESTING
LOADGEN_WASM_BYTES_DISTRIBUTION_FOR_TESTING LOADGEN_WASM_BYTES_FOR_TESTING LOG_COLOR LOG_FILE_PATH
MANUAL_CLOSE MAXIMUM_LEDGER_CLOSETIME_DRIFT MAX_CONCURRENT_SUBPROCESSES
MAX_DEX_TX_OPERATIONS_IN_TX_SET METADATA_DEBUG_LEDGERS METADATA_OUTPUT_STREAM
NTP_DRIFT_CHECK_SERVER OP_APPLY_SLEEP_TIME_DURATION_FOR_TESTING
OP_APPLY_SLEEP_TIME_WEIGHT_FOR_TESTING OVERRIDE_EVICTION_PARAMS_FOR_TESTING PARALLEL_LEDGER_APPLY
PATH_TO_PROTOCOL_23_CORRUPTION_FILE PREFETCH_BATCH_SIZE PUBLISH_TO_ARCHIVE_DELAY
QUERY_SNAPSHOT_LEDGERS QUERY_THREAD_POOL_SIZE QUORUM_INTERSECTION_CHECKER
QUORUM_INTERSECTION_CHECKER_MEMORY_LIMIT_BYTES QUORUM_INTERSECTION_CHECKER_TIME_LIMIT_MS
SKIP_HIGH_CRITICAL_VALIDATOR_CHECKS_FOR_TESTING
SOROBAN_TRANSACTION_QUEUE_SIZE_MULTIPLIER_FOR_TESTING STATE_SNAPSHOT_INVARIANT_LEDGER_FREQUENCY
TESTING_EVICTION_SCAN_SIZE TESTING_IGNORE_LEDGER_TIME_UPGRADE_BOUNDS
TESTING_MAX_CLASSIC_BYTE_ALLOWANCE TESTING_MAX_ENTRIES_TO_ARCHIVE
TESTING_MAX_SOROBAN_BYTE_ALLOWANCE TESTING_MINIMUM_PERSISTENT_ENTRY_LIFETIME
TESTING_NOMINATE_RANDOM_VALUES TESTING_SOROBAN_HIGH_LIMIT_OVERRIDE
TESTING_STARTING_EVICTION_SCAN_LEVEL TRANSACTION_QUEUE_SIZE_MULTIPLIER_FOR_TESTING
TX_SET_DOWNLOAD_TIMEOUT UNSAFE_QUORUM UPDATE_SOROBAN_COSTS_DURING_PROTOCOL_UPGRADE_FOR_TESTING
USE_QUORUM_INTERSECTION_CHECKER_V2 WORKER_THREADS
"""
_CORE_KEYS = frozenset(_CORE.split())
