"""What one SQL statement is and which tables and rows it touches, as SQLite itself tells it.

`EXPLAIN` compiles a statement without running it. The authorizer then names what it asks for
(tables, through views, triggers and cascades; DDL; transactions), and the program says which trees
it opens. A statement is about one row only if its program proves that: each cursor on the table
is placed by nothing but the primary key, and the key comes straight from a parameter or a number.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from cachelab.stage.scheduler import Label

Action = tuple[int, str | None, str | None, str | None, str | None]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _codes(*names: str) -> frozenset[int]:
    return frozenset(getattr(sqlite3, f"SQLITE_{name}") for name in names)


_KINDS = ("INDEX", "TABLE", "TRIGGER", "VIEW")
_TEMPORARY = _codes(*(f"{verb}_TEMP_{kind}" for verb in ("CREATE", "DROP") for kind in _KINDS))
_SCHEMA = _codes(
    *(f"{verb}_{kind}" for verb in ("CREATE", "DROP") for kind in (*_KINDS, "VTABLE")),
    *("ALTER_TABLE", "ANALYZE", "REINDEX"),
)
_ELSEWHERE = _codes("ATTACH", "DETACH")
_WRITES = _codes("INSERT", "UPDATE", "DELETE")
_MASTER = {"sqlite_master": "sqlite_schema", "sqlite_temp_master": "sqlite_schema"}
_OF_A_CONNECTION = {"last_insert_rowid", "changes", "total_changes"}

# Pragmas that say how a connection works, not what it says: on the stage there is nothing to tune.
_TUNING = _words(
    "journal_mode synchronous busy_timeout cache_size mmap_size temp_store wal_autocheckpoint "
    "wal_checkpoint optimize locking_mode read_uncommitted auto_vacuum secure_delete threads "
    "cache_spill journal_size_limit page_size"
)
_ABOUT_ROWS = {"foreign_key_check", "integrity_check", "quick_check"}
_ABOUT_SCHEMA = _words(
    "table_info table_xinfo table_list index_list index_info index_xinfo foreign_key_list "
    "schema_version user_version application_id"
)

# Opcodes of SQLite's virtual machine; any that is in none of these sets says nothing for certain.
_PLAIN = _words(  # without a cursor, their P2 is no address
    "Halt HaltIfNull Integer Int64 Real String String8 Null SoftNull Blob Variable Copy SCopy "
    "IntCopy Move ResultRow Concat Add Subtract Multiply Divide Remainder BitAnd BitOr ShiftLeft "
    "ShiftRight AddImm RealAffinity Cast And Or Not BitNot IsTrue ZeroOrNull Affinity MakeRecord "
    "Transaction ReadCookie Function PureFunc CollSeq Noop Explain ResetCount TypeCheck "
    "OffsetLimit AggStep AggStep1 AggFinal AggValue Close Column Rowid IdxRowid Delete Insert "
    "IdxInsert IdxDelete DeferredSeek FinishSeek NullRow ColumnsUsed RowData OpenRead OpenWrite "
    "ReopenIdx OpenEphemeral OpenAutoindex OpenPseudo OpenDup SorterOpen SorterInsert SorterData "
    "ResetSorter Sequence Count NewRowid Permutation Compare"
)
_JUMPS = _words(
    "Init Goto MustBeInt Eq Ne Lt Le Gt Ge ElseEq Once If IfNot IsNull NotNull IsType IfPos "
    "IfNotZero DecrJumpZero IfNullRow SeekRowid NotExists SorterSort SorterNext Sort Rewind Next "
    "Prev Last SeekGT SeekGE SeekLE SeekLT Found NotFound NoConflict IdxGE IdxGT IdxLE "
    "IdxLT IfNotOpen SeekHit IfNoHope IfSmaller"
)
_MOVES = _words(  # a cursor, to rows that are not known beforehand
    "Rewind Next Prev Last SeekGT SeekGE SeekLE SeekLT Found NotFound NoConflict IdxGE IdxGT IdxLE "
    "IdxLT Count NewRowid Sort SeekHit IfNoHope IfSmaller OpenDup"
)
_OPENS = {"OpenRead", "OpenWrite", "ReopenIdx"}
_ROLLBACK = 1  # Halt's P2: the whole transaction is rolled back
_BEFORE_TEXT = re.compile(r"(?:\s+|--[^\n]*\n|/\*.*?\*/|\()*", re.DOTALL)


class Op(NamedTuple):
    """One instruction of a compiled statement."""

    addr: int
    name: str
    p1: int
    p2: int
    p3: int
    p4: Any
    p5: int


@dataclass(frozen=True)
class Key:
    """Where the key of the one row is: the number of a parameter, from 1, or the key itself."""

    parameter: int | None
    value: int | None
    kind: type

    def item(self, parameters: Any) -> str | None:
        """The row's name in a label; None when it could be any: SQLite converts what it is given.

        1, 1.0 and '1' are the same row, and True is 1.
        """
        value: Any = self.value
        if self.parameter is not None:
            if not isinstance(parameters, Sequence) or self.parameter > len(parameters):
                return None
            value = parameters[self.parameter - 1]
        if self.kind is int:
            return str(int(value)) if type(value) in (int, bool) else None
        return value if type(value) is str else None


@dataclass(frozen=True)
class Statement:
    """What one SQL text does.

    `kind`: read, write, schema, begin, commit, rollback, savepoint, pragma; "unclear" when SQLite
    does not compile it. `tables`: each with whether it is written and the keys of the rows, None
    for all. `detail` and `name`: of a pragma its name and value, of a savepoint BEGIN, RELEASE or
    ROLLBACK and its name, of a BEGIN whether it takes the lock at once. `refused`: why it cannot
    run on the stage, or "".
    """

    kind: str
    tables: tuple[tuple[str, bool, tuple[Key, ...] | None], ...] = ()
    detail: str = ""
    name: str = ""
    refused: str = ""
    of_connection: bool = False  # asks for what only its own connection knows

    def label(self, parameters: Any, many: bool = False) -> Label:
        """What it touches when it is run with these parameters, or with each of them."""
        touched: dict[Any, None] = {}
        for table, writes, keys in self.tables:
            space = f"table {table}"
            for given in parameters if many else (parameters,):
                for key in keys or (None,):
                    item = None if key is None else key.item(given)
                    if item is None:
                        touched[space, None, writes] = None
                        break
                    touched[space, item, writes] = None
        return tuple(touched)


@dataclass
class Compiler:
    """Reads statements by asking `real`, whose authorizer calls `note`."""

    seen: list[Action] = field(default_factory=list)
    listening: bool = False

    def note(self, *action: Any) -> int:
        """SQLite's authorizer: everything is allowed, and remembered while a statement is read."""
        if self.listening:
            self.seen.append(action)
        return sqlite3.SQLITE_OK

    def read(self, real: sqlite3.Connection, text: str, parameters: Any) -> Statement:
        """What `text` does in the schema that `real` has now."""
        start = _BEFORE_TEXT.match(text)
        first = text[start.end() if start else 0 :][:7].upper()
        if first == "EXPLAIN":
            return Statement("read", (("sqlite_schema", False, None),))
        if first[:6] == "VACUUM":
            return Statement("read", refused="VACUUM is not on the stage: leave it out.")
        self.seen.clear()
        self.listening = True
        try:
            found = real.execute(f"EXPLAIN {text}", parameters).fetchall()
        except (sqlite3.Error, sqlite3.Warning, ValueError, TypeError, OverflowError):
            return Statement("unclear", everything(real))
        finally:
            self.listening = False
        return _understood(real, self.seen, [Op(*row[:7]) for row in found])


def everything(real: sqlite3.Connection) -> tuple[tuple[str, bool, None], ...]:
    """All tables there are, written."""
    found = real.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
    names = dict.fromkeys(["sqlite_schema", *(_fold(name) for (name,) in found)])
    return tuple((name, True, None) for name in names)


def _fold(name: str | None) -> str:
    """A name as labels have it: SQLite does not tell cases apart."""
    return _MASTER.get(str(name).casefold(), str(name).casefold())


def _understood(real: sqlite3.Connection, seen: list[Action], program: list[Op]) -> Statement:
    codes = {action[0] for action in seen}
    one: Action = seen[0] if seen else (0, None, None, None, None)
    if codes & _ELSEWHERE:
        return Statement("read", refused="A second database is not on the stage: use one.")
    if sqlite3.SQLITE_TRANSACTION in codes:
        at_once = "immediate" if any(op.name == "Transaction" for op in program) else ""
        return Statement(str(one[1]).lower(), detail=at_once)
    if sqlite3.SQLITE_SAVEPOINT in codes:
        return Statement("savepoint", detail=str(one[1]), name=str(one[2]).lower())
    if sqlite3.SQLITE_PRAGMA in codes:
        return _pragma(real, str(one[1]).lower(), one[2])
    if codes & _TEMPORARY or any(op.name in _OPENS and op.p3 == 1 for op in program):
        why = "A temporary table is not on the stage: make a plain one, in setup."
        return Statement("read", refused=why)
    if codes & _SCHEMA:
        made = [_fold(a[1]) for a in seen if a[0] == sqlite3.SQLITE_CREATE_TABLE]
        return Statement("schema", (*everything(real), *((name, True, None) for name in made)))
    rolls_back = any(
        op.name in {"Halt", "HaltIfNull"} and op.p1 and op.p2 == _ROLLBACK for op in program
    )
    if rolls_back:
        why = "ON CONFLICT ROLLBACK is not on the stage: let the statement fail, and roll back."
        return Statement("read", refused=why)
    tables = _tables(real, seen, program)
    asks = {str(a[2]).lower() for a in seen if a[0] == sqlite3.SQLITE_FUNCTION}
    # A function that gives rows, as json_each does, says that it makes a table.
    changes = any(a[0] in _WRITES and _fold(a[1]) != "sqlite_schema" for a in seen)
    kind = "write" if changes else "read"
    return Statement(kind, tables, of_connection=bool(asks & _OF_A_CONNECTION))


def _pragma(real: sqlite3.Connection, name: str, value: str | None) -> Statement:
    if name in _ABOUT_ROWS:
        tables = tuple((table, False, None) for table, _, _ in everything(real))
        return Statement("pragma", tables, name)
    if name in _ABOUT_SCHEMA and (value is None or not name.endswith(("version", "_id"))):
        return Statement("pragma", (("sqlite_schema", False, None),), name)
    refused = ""
    if value is not None and name not in _TUNING | {"foreign_keys"}:
        refused = f"PRAGMA {name} = {value} is not on the stage: leave it out."
    return Statement("pragma", (), name, value or "", refused)


# Tables and rows -----------------------------------------------------------------------------


def _tables(
    real: sqlite3.Connection, seen: list[Action], program: list[Op]
) -> tuple[tuple[str, bool, tuple[Key, ...] | None], ...]:
    """What a statement reads and writes, from both witnesses."""
    roots = _roots(real)
    opened: dict[int, set[tuple[str, bool]]] = {}
    writes: dict[str, bool] = {}
    for op in program:
        if op.name in _OPENS:
            tree = roots.get(op.p2)
            if tree is None or op.p5 & 0x10:  # P2 is a register
                return everything(real)
            opened.setdefault(op.p1, set()).add(tree)
            writes[tree[0]] = writes.get(tree[0], False) or op.name == "OpenWrite"
        elif op.name == "Clear":
            tree = roots.get(op.p1)
            if tree is None:
                return everything(real)
            writes[tree[0]] = True
        elif op.name in {"VOpen", "VUpdate", "Destroy", "Vacuum", "ParseSchema"}:
            return everything(real)
    real_tables = {name for name, _ in roots.values()}
    for code, table, _, _, _ in seen:
        if code in _WRITES or code == sqlite3.SQLITE_READ:
            name = _fold(table)
            if name in real_tables:  # and not a view, a CTE or a function
                writes[name] = writes.get(name, False) or code in _WRITES
    rows = _rows(real, seen, program, opened)
    return tuple((name, write, rows.get(name)) for name, write in writes.items())


def _roots(real: sqlite3.Connection) -> dict[int, tuple[str, bool]]:
    """Each tree's table, and whether it is the table itself rather than an index."""
    asked = "SELECT rootpage, tbl_name, type = 'table' FROM sqlite_schema WHERE rootpage > 0"
    found = {root: (_fold(name), bool(table)) for root, name, table in real.execute(asked)}
    return {1: ("sqlite_schema", True), **found}


def _rows(
    real: sqlite3.Connection,
    seen: list[Action],
    program: list[Op],
    opened: dict[int, set[tuple[str, bool]]],
) -> dict[str, tuple[Key, ...]]:
    """The tables of which provably only single rows are touched, with the keys of those."""
    known = _PLAIN | _JUMPS
    if any(op.name not in known for op in program):  # a trigger, a coroutine, or news
        return {}
    if any(code == sqlite3.SQLITE_INSERT for code, *_ in seen):
        return {}
    keys: dict[str, dict[Key, None]] = {}
    for table in {name for trees in opened.values() for name, _ in trees}:
        found = _keys_of(real, table, program, opened)
        if found:
            keys[table] = found
    return {table: tuple(found) for table, found in keys.items()}


def _keys_of(
    real: sqlite3.Connection,
    table: str,
    program: list[Op],
    opened: dict[int, set[tuple[str, bool]]],
) -> dict[Key, None] | None:
    """The keys of the rows of `table`; None when it may be any row."""
    name, index = _primary_key(real, table)
    if name is None:
        return None
    cursors = {number for number, trees in opened.items() if any(on == table for on, _ in trees)}
    if any(len(opened[number]) != 1 for number in cursors):
        return None
    on_key = {op.p1 for op in program if op.name in _OPENS and op.p1 in cursors and op.p2 == index}
    found: dict[Key, None] = {}
    placed: set[int] = set()
    for at, op in enumerate(program):
        if op.p1 not in cursors:
            continue
        if op.name in {"SeekRowid", "NotExists"}:
            key = _constant(program, at, op.p3, at) if index is None else None
            if key is None:
                return None
            found[Key(*key, int)] = None
            placed.add(op.p1)
        elif op.name == "SeekGE" and op.p1 in on_key:
            after = program[at + 1]
            same = (after.name, after.p1, after.p3) == ("IdxGT", op.p1, op.p3)
            key = _constant(program, at, op.p3, at + 1)
            if not same or key is None or {str(op.p4), str(after.p4)} != {"1"}:
                return None
            found[Key(*key, str)] = None
            placed.add(op.p1)
        elif op.name == "IdxGT" and op.p1 in on_key and program[at - 1].name == "SeekGE":
            continue
        elif op.name == "DeferredSeek":
            placed.add(op.p3)
        elif op.name in _MOVES:
            return None
    tables = {number for number in cursors if next(iter(opened[number]))[1]}
    return found if tables <= placed else None


def _constant(
    program: list[Op], at: int, register: int, until: int
) -> tuple[int | None, int | None] | None:
    """The parameter or number in `register` when the instruction `at` runs; None if not certain.

    It is certain if the instructions before it put it there, and nobody jumps in between.
    """
    first = at - 1
    while program[first].name in {"IsNull", "MustBeInt", "Affinity"}:
        if program[first].p1 != register or (
            program[first].name == "Affinity" and program[first].p2 != 1
        ):
            return None
        first -= 1
    source = program[first]
    if source.p2 != register or source.name not in {"Variable", "Integer"}:
        return None
    if any(first < op.p2 <= until for op in program if op.name in _JUMPS):
        return None
    return (source.p1, None) if source.name == "Variable" else (None, source.p1)


def _primary_key(real: sqlite3.Connection, table: str) -> tuple[str | None, int | None]:
    """The one column that names a row of `table`, and its index's root, None for the rowid."""
    columns = real.execute("SELECT name, pk FROM pragma_table_info(?)", (table,)).fetchall()
    of_key = [_fold(name) for name, place in columns if place]
    if len(of_key) != 1:
        return None, None
    indexes = "SELECT name FROM pragma_index_list(?) WHERE origin = 'pk'"
    found = real.execute(indexes, (table,)).fetchall()
    if not found:
        return of_key[0], None
    collations = "SELECT coll FROM pragma_index_xinfo(?) WHERE key"
    if real.execute(collations, found[0]).fetchall() != [("BINARY",)]:
        return None, None
    root = real.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", found[0]).fetchone()
    return (of_key[0], root[0]) if root is not None else (None, None)  # None: WITHOUT ROWID
