"""The memory of each process: what its code keeps is its own, like after a fork.

Before a run, all that the actors can reach is looked through, without running any code of it. What
can change (lists, dicts, sets, attributes, and names that some code sets) is a place; its content
is exchanged when another process goes on, so that every object stays the same object for all, as
an address does, and holds in each process what that process has put there. What a process adds to
the caller's own collections is added to the caller's too, as a result that is sent back.
"""

from __future__ import annotations

import ast
import dis
import functools
import itertools
import queue
import sys
import threading
import types
import uuid
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from operator import is_
from typing import Any

from cachelab.stage.scheduler import Limit, Process

MOST_OBJECTS = 100_000

# What is one and the same for all processes: connections, and the tools around the stage.
_SHARED = {"sqlalchemy", "redis", "fakeredis", "greenlet", "numpy", "pandas", "matplotlib"}
_SHARED |= {"IPython", "ipykernel", "traitlets", "zmq", "pytest", "_pytest", "hypothesis"}
# Of the standard library, whose objects hold what others have put there.
_KEEPS = {"builtins", "collections", "concurrent", "contextlib", "functools", "itertools"}
_KEEPS |= {"queue", "random", "threading", "types"}
_ATOMS = (str, bytes, int, float, bool, complex, type(None), range, type(Ellipsis))
_DYNAMIC = {"globals", "exec", "eval"}
_MISSING: Any = object()
_OF_A_THREAD = set(vars(threading.Thread(name="plumbing")))
_Cache: Any = type(functools.lru_cache(len))
_module_space: Any = vars(types.ModuleType)["__dict__"]
_space_of: Callable[[Any], dict[str, Any]] = _module_space.__get__


def is_library(name: Any) -> bool:
    """Whether a module of that name is nobody's own code: its globals are one for all processes."""
    found = _libraries.get(name)
    if found is None:
        found = _libraries[name] = _find_library(str(name))
    return found


_libraries: dict[Any, bool] = {}


def _find_library(name: str) -> bool:
    root = name.partition(".")[0]
    if root == "cachelab":
        return not name.startswith(("cachelab.exercises", "cachelab.patterns"))
    if root in sys.stdlib_module_names or root in _SHARED:
        return True
    module = sys.modules.get(name)
    space = _space_of(module) if isinstance(type(module), type) and _is_module(module) else {}
    file = str(space.get("__file__") or "")
    return "site-packages" in file or "dist-packages" in file


def _is_module(value: Any) -> bool:
    return issubclass(type(value), types.ModuleType)


# What code sets --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Facts:
    """Which names some code, and the functions inside it, mention and set."""

    names: frozenset[str]
    sets_global: frozenset[str]
    sets_cell: frozenset[str]
    sets_attribute: frozenset[str]


@functools.lru_cache(maxsize=20_000)
def _facts(code: types.CodeType) -> _Facts:
    found: dict[str, set[str]] = {"GLOBAL": set(), "DEREF": set(), "ATTR": set()}
    names = set(code.co_names)
    for step in dis.get_instructions(code):
        verb, _, kind = step.opname.partition("_")
        if verb in ("STORE", "DELETE") and kind in found:
            found[kind].add(step.argval)
        elif step.opname in ("STORE_NAME", "DELETE_NAME"):
            found["GLOBAL"].add(step.argval)
    inner = [_facts(part) for part in code.co_consts if isinstance(part, types.CodeType)]
    return _Facts(
        frozenset(names).union(*(one.names for one in inner)),
        frozenset(found["GLOBAL"]).union(*(one.sets_global for one in inner)),
        frozenset(found["DEREF"]).union(*(one.sets_cell for one in inner)),
        frozenset(found["ATTR"]).union(*(one.sets_attribute for one in inner)),
    )


# Places ----------------------------------------------------------------------------------------
# Each says what it holds (`load`), whether that is still so (`holds`), and takes it back (`store`).
# `sent(theirs, old, new)` is what the caller has after a process has made `new` out of `old`.


class _Items:
    """The items of a dict, by key."""

    def __init__(self, space: Any) -> None:
        self.space = self.of = space
        self.base: Any = OrderedDict if issubclass(type(space), OrderedDict) else dict
        self.counts = issubclass(type(space), Counter) or (
            issubclass(type(space), defaultdict) and space.default_factory is int
        )

    def load(self) -> Any:
        return tuple(self.base.keys(self.space)), tuple(self.base.values(self.space))

    def holds(self, content: Any) -> bool:
        keys, values = content
        return (
            dict.__len__(self.space) == len(keys)
            and all(map(is_, self.base.values(self.space), values))
            and all(map(is_, self.base.keys(self.space), keys))
        )

    def store(self, content: Any) -> None:
        self.base.clear(self.space)
        for key, value in zip(*content, strict=True):
            self.base.__setitem__(self.space, key, value)

    def replace(self, content: Any, twin: Callable[[Any], Any]) -> Any:
        return content[0], tuple(map(twin, content[1]))

    def values(self, content: Any) -> Any:
        return content[1]

    def sent(self, theirs: Any, old: Any, new: Any, began: Any) -> Any:
        result, was = dict(zip(*theirs, strict=True)), dict(zip(*old, strict=True))
        is_now, first = dict(zip(*new, strict=True)), set(began[0])
        for key, value in is_now.items():
            if key not in was or was[key] is not value:
                missing = 0 if self.counts else _MISSING
                before = was.get(key, missing)
                result[key] = _sent_value(result.get(key, missing), before, value)
        for key in was:
            if key not in is_now and key not in first:
                result.pop(key, None)
        return tuple(result), tuple(result.values())


class _Names:
    """Some names of a module's namespace, or attributes of a class or an object, or a cell."""

    def __init__(self, of: Any, names: Iterable[Any], get: Any, put: Any) -> None:
        self.of, self.names = of, tuple(names)
        self.get, self.put = get, put

    def load(self) -> Any:
        return tuple(map(self.get, self.names))

    def holds(self, content: Any) -> bool:
        return all(map(is_, map(self.get, self.names), content))

    def store(self, content: Any) -> None:
        for name, value in zip(self.names, content, strict=True):
            if self.get(name) is not value:
                self.put(name, value)

    def replace(self, content: Any, twin: Callable[[Any], Any]) -> Any:
        return tuple(map(twin, content))

    def values(self, content: Any) -> Any:
        return content

    def sent(self, theirs: Any, old: Any, new: Any, began: Any) -> Any:
        return tuple(
            mine if before is after else _sent_value(mine, before, after)
            for mine, before, after in zip(theirs, old, new, strict=True)
        )


class _Row:
    """The items of a list, a deque or a bytearray, in their order."""

    def __init__(self, row: Any) -> None:
        self.row = self.of = row
        self.base: Any = next(k for k in (list, deque, bytearray) if issubclass(type(row), k))

    def load(self) -> Any:
        return tuple(self.base.__iter__(self.row))

    def holds(self, content: Any) -> bool:
        return self.base.__len__(self.row) == len(content) and all(
            map(is_, self.base.__iter__(self.row), content)
        )

    def store(self, content: Any) -> None:
        self.base.clear(self.row)
        self.base.extend(self.row, content)

    def replace(self, content: Any, twin: Callable[[Any], Any]) -> Any:
        return tuple(map(twin, content))

    def values(self, content: Any) -> Any:
        return content

    def sent(self, theirs: Any, old: Any, new: Any, began: Any) -> Any:
        if len(new) >= len(old) and all(map(is_, old, new)):
            return (*theirs, *new[len(old) :])
        left = Counter(map(id, old))
        added = []
        for item in new:
            if left[id(item)]:
                left[id(item)] -= 1
            else:
                added.append(item)
        result = [*theirs, *added]
        gone = +left - Counter(map(id, began))  # what it had added itself, and has taken out
        for at in range(len(result) - 1, -1, -1):
            if gone[id(result[at])] > 0:
                gone[id(result[at])] -= 1
                del result[at]
        return tuple(result)


class _Members:
    """The members of a set."""

    def __init__(self, members: Any) -> None:
        self.members = self.of = members

    def load(self) -> Any:
        return tuple(set.__iter__(self.members))

    def holds(self, content: Any) -> bool:
        return set.__len__(self.members) == len(content) and all(
            map(is_, set.__iter__(self.members), content)
        )

    def store(self, content: Any) -> None:
        set.clear(self.members)
        set.update(self.members, content)

    def replace(self, content: Any, twin: Callable[[Any], Any]) -> Any:
        return content

    def values(self, content: Any) -> Any:
        return ()

    def sent(self, theirs: Any, old: Any, new: Any, began: Any) -> Any:
        gone = set(old) - set(new) - set(began)
        added = (item for item in new if item not in set(old))
        return tuple(dict.fromkeys(item for item in (*theirs, *added) if item not in gone))


Place = _Items | _Names | _Row | _Members


def _sent_value(theirs: Any, old: Any, new: Any) -> Any:
    """A number is counted on, anything else is replaced."""
    numbers = (theirs, old, new)
    if all(type(value) is int for value in numbers):
        return theirs + new - old
    return new


# What earlier runs have sent back: it is the caller's, and later processes do not begin with it.
_sent: OrderedDict[tuple[int, Any], tuple[Any, Any, Any]] = OrderedDict()
_MOST_SENT = 500


def _remember(place: Place, content: Any, begins: Any) -> None:
    """The caller has this now, of which processes begin with `begins`."""
    key = (id(place.of), getattr(place, "names", None))
    _sent[key] = (place.of, content, begins)
    _sent.move_to_end(key)
    if len(_sent) > _MOST_SENT:
        _sent.popitem(last=False)


def _begins_with(place: Place, content: Any) -> Any:
    """What a process has there at first: the content, if the caller has changed it meanwhile."""
    known = _sent.get((id(place.of), getattr(place, "names", None)))
    if known is None or known[0] is not place.of or not place.holds(known[1]):
        return content
    return known[2]


# Objects that hold something out of reach: a process has another one in their place. ------------


def _twin(value: Any) -> Any:
    """One like it, as a new process has it; None when it needs none."""
    kind = type(value)
    if kind is _Cache:
        made = functools.lru_cache(**value.cache_parameters())(value.__wrapped__)
        made.__dict__.update(value.__dict__)
        return made
    if kind is itertools.count:
        try:
            return itertools.count(*ast.literal_eval(f"{repr(value)[6:-1]},"))
        except (ValueError, SyntaxError):
            return None
    if kind is queue.SimpleQueue:
        return queue.SimpleQueue()
    return None


_TWINS = (_Cache, itertools.count, queue.SimpleQueue)


# Looking through -------------------------------------------------------------------------------


@dataclass
class Reach:
    """What can be reached from some callables: places, and whether they are the caller's own."""

    spaces: set[int] = field(default_factory=set)  # ids of the namespaces of the caller's code
    places: list[Place] = field(default_factory=list)
    own: list[bool] = field(default_factory=list)
    seen: dict[int, Any] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    sets: set[str] = field(default_factory=set)  # attributes that some code sets
    modules: dict[int, tuple[Any, bool, set[str]]] = field(default_factory=dict)
    classes: dict[int, tuple[Any, bool, set[str]]] = field(default_factory=dict)
    set_names: dict[int, tuple[dict[str, Any], bool, set[str]]] = field(default_factory=dict)

    def walk(self, roots: Iterable[Any]) -> None:
        """Look through all that is not seen yet; raises Limit when there is too much of it."""
        waiting: deque[tuple[Any, bool, Any]] = deque((root, True, root) for root in roots)
        while True:
            while waiting:
                value, own, root = waiting.popleft()
                if type(value) in _ATOMS or id(value) in self.seen:
                    continue
                self.seen[id(value)] = value
                if len(self.seen) > MOST_OBJECTS:
                    raise Limit(
                        f"{_name_of(root)} reaches more than {MOST_OBJECTS:,} objects, the last a "
                        f"{type(value).__name__}: the stage cannot give each process its own."
                    )
                waiting.extend((part, mine, root) for part, mine in self._inside(value, own))
            for module, own, told in self.modules.values():
                space = _space_of(module)
                new = (self.names & space.keys()) - told
                told |= new
                waiting.extend((space[name], own, module) for name in new)
            if not waiting:
                return

    def finish(self) -> None:
        """The names and attributes that any of the code sets are places too."""
        for module, own, told in self.modules.values():
            self._set(_space_of(module), own, self.sets & _space_of(module).keys() & told)
        for space, own, names in self.set_names.values():
            if names:
                self._add(_Names(space, sorted(names), _getter(space), _putter(space)), own)
        self.set_names.clear()
        for kind, own, told in self.classes.values():
            new = {
                name
                for name, value in vars(kind).items()
                if name in self.sets or type(value) in _TWINS
            } - told
            told |= new
            if new:
                get, put = _class_getter(kind), _class_putter(kind)
                self._add(_Names(kind, sorted(new), get, put), own)

    def _add(self, place: Place, own: bool) -> None:
        self.places.append(place)
        self.own.append(own)

    def _set(self, space: dict[str, Any], own: bool, names: Iterable[str]) -> None:
        found = self.set_names.setdefault(id(space), (space, own, set()))
        found[2].update(names)

    def _inside(self, value: Any, own: bool) -> Iterator[tuple[Any, bool]]:
        kind = type(value)
        if kind is types.FunctionType:
            yield from self._function(value, own)
        elif kind is types.MethodType:
            yield value.__func__, own
            yield value.__self__, own
        elif kind is functools.partial:
            for part in (value.func, value.args, value.keywords):
                yield part, own
        elif kind in (staticmethod, classmethod):
            yield value.__func__, own
        elif kind is property:
            for part in (value.fget, value.fset, value.fdel):
                yield part, own
        elif kind is _Cache:
            yield value.__wrapped__, own
        elif kind in (tuple, frozenset):
            for part in value:
                yield part, own
        elif _is_module(value):
            space = _space_of(value)
            if not is_library(space.get("__name__")):
                self.modules[id(value)] = (value, id(space) in self.spaces, set())
        elif issubclass(kind, type):
            yield from self._class(value, own)
        else:
            yield from self._object(value, kind, own)

    def _function(self, function: Any, own: bool) -> Iterator[tuple[Any, bool]]:
        facts, space = _facts(function.__code__), function.__globals__
        if not is_library(space.get("__name__")):
            own = id(space) in self.spaces
            self.names |= facts.names
            self.sets |= facts.sets_attribute
            sets = set(facts.sets_global)
            if facts.names & _DYNAMIC:
                sets |= {name for name in space if not name.startswith("__")}
            for name in sorted(facts.names):
                value = space.get(name, _MISSING)
                if value is _MISSING:
                    value = sys.modules.get(name)  # that it imports
                elif type(value) in _TWINS:
                    sets.add(name)
                yield value, own
            if sets:
                self._set(space, own, sets)
        for name, cell in zip(
            function.__code__.co_freevars, function.__closure__ or (), strict=True
        ):
            content = _cell_get(cell)
            if (name in facts.sets_cell or type(content) in _TWINS) and id(cell) not in self.seen:
                self.seen[id(cell)] = cell
                self._add(_Names(cell, ("",), *_cell(cell)), own)
            yield content, own
        for default in function.__defaults__ or ():
            yield default, own
        if function.__kwdefaults__:
            yield function.__kwdefaults__, own
        if function.__dict__ or facts.sets_attribute:
            yield function.__dict__, own

    def _class(self, kind: Any, own: bool) -> Iterator[tuple[Any, bool]]:
        module = type.__dict__["__module__"].__get__(kind)
        if is_library(module):
            return
        home = sys.modules.get(str(module))
        if home is not None and _is_module(home):
            own = id(_space_of(home)) in self.spaces
        space = type.__dict__["__dict__"].__get__(kind)
        self.classes[id(kind)] = (kind, own, set())
        for name, value in list(space.items()):
            if not name.startswith("__") or type(value) is types.FunctionType:
                yield value, own
        for base in type.__dict__["__bases__"].__get__(kind):
            yield base, own

    def _object(self, value: Any, kind: Any, own: bool) -> Iterator[tuple[Any, bool]]:
        module = str(type.__dict__["__module__"].__get__(kind))
        root = module.partition(".")[0]
        if root in _SHARED or (root == "cachelab" and is_library(module)):
            return
        if root in sys.stdlib_module_names and root not in _KEEPS:
            return
        if kind in _TWINS:
            return
        if issubclass(kind, dict):
            place: Place = _Items(value)
            self._add(place, own)
            keys, values = _begins_with(place, place.load())
            for part in (*keys, *values):
                yield part, own
            if issubclass(kind, defaultdict):
                yield value.default_factory, own
        elif issubclass(kind, (list, deque, bytearray)):
            place = _Row(value)
            self._add(place, own)
            if not issubclass(kind, bytearray):
                for part in _begins_with(place, place.load()):
                    yield part, own
        elif issubclass(kind, set):
            place = _Members(value)
            self._add(place, own)
            for part in _begins_with(place, place.load()):
                yield part, own
        elif issubclass(kind, (tuple, frozenset)):
            for part in (tuple if issubclass(kind, tuple) else frozenset).__iter__(value):
                yield part, own
        space = _attributes(value, kind)
        if space is not None:
            if issubclass(kind, threading.Thread) and value.ident is not None:
                names = space.keys() - _OF_A_THREAD  # what tells whether it lives is nobody's
                self._add(_Names(space, sorted(names), _getter(space), _putter(space)), own)
                for name in names:
                    yield space[name], own
            else:
                yield space, own
        slots = list(_slots(kind))
        if slots:
            get, put = _slot_getter(value), _slot_putter(value)
            self._add(_Names(value, slots, get, put), own)
            for slot in slots:
                yield get(slot), own
        yield kind, own


def _name_of(value: Any) -> str:
    if type(value) in (types.FunctionType, types.ModuleType):
        return str(value.__name__)
    return f"A {type(value).__name__}"


def _mro(kind: Any) -> tuple[Any, ...]:
    return type.__dict__["__mro__"].__get__(kind)  # type: ignore[no-any-return]


def _attributes(value: Any, kind: Any) -> Any:
    """The dict of an object's own attributes, if that is an ordinary one; None otherwise."""
    for base in _mro(kind):
        found = type.__dict__["__dict__"].__get__(base).get("__dict__")
        if found is not None:
            ordinary = type(found) is types.GetSetDescriptorType
            space = found.__get__(value) if ordinary else None
            return space if type(space) is dict else None
    return None


def _slots(kind: Any) -> Iterator[Any]:
    for base in _mro(kind):
        for value in type.__dict__["__dict__"].__get__(base).values():
            if type(value) is types.MemberDescriptorType and not is_library(base.__module__):
                yield value


def _slot_getter(value: Any) -> Callable[[Any], Any]:
    def get(slot: Any) -> Any:
        try:
            return slot.__get__(value)
        except AttributeError:
            return _MISSING

    return get


def _slot_putter(value: Any) -> Callable[[Any, Any], None]:
    def put(slot: Any, content: Any) -> None:
        if content is _MISSING:
            slot.__delete__(value)
        else:
            slot.__set__(value, content)

    return put


def _getter(space: dict[str, Any]) -> Callable[[str], Any]:
    return lambda name: space.get(name, _MISSING)


def _putter(space: dict[str, Any]) -> Callable[[str, Any], None]:
    def put(name: str, value: Any) -> None:
        if value is _MISSING:
            space.pop(name, None)
        else:
            space[name] = value

    return put


def _class_getter(kind: Any) -> Callable[[str], Any]:
    space = type.__dict__["__dict__"].__get__(kind)
    return lambda name: space.get(name, _MISSING)


def _class_putter(kind: Any) -> Callable[[str, Any], None]:
    def put(name: str, value: Any) -> None:
        if value is _MISSING:
            type.__delattr__(kind, name)
        else:
            type.__setattr__(kind, name, value)

    return put


def _cell_get(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _MISSING


def _cell(cell: Any) -> tuple[Callable[[str], Any], Callable[[str, Any], None]]:
    def put(_: str, value: Any) -> None:
        if value is _MISSING:
            del cell.cell_contents
        else:
            cell.cell_contents = value

    return lambda _: _cell_get(cell), put


# Processes -------------------------------------------------------------------------------------

NODE = 0x02_00_00_00_00_00  # of no network card; a process's number is added
_uuid: Any = uuid


class Memory:
    """What is in place now, and what each process and the caller have instead."""

    def __init__(self, roots: Iterable[Any]) -> None:
        self.caller = Process("", 0)
        self._inside = self.caller
        self._reach = Reach()
        self._base: list[Any] = []  # what a process begins with
        self._now: list[Any] = []  # what is in place
        self._twinned: list[int] = []
        self._sends = True
        self._limit: Limit | None = None
        try:
            self._see(roots)
        except Limit as limit:
            self._limit, self._reach = limit, Reach()
        self._began = list(self._base)
        self._entry = list(self._base)
        self._static = (len(self._base), len(self._reach.seen), len(self._twinned))

    def _see(self, roots: Iterable[Any]) -> None:
        """Look through what these reach, as it is now, in the caller's memory."""
        reach, found = self._reach, [root for root in roots if root is not None]
        reach.spaces |= set(_spaces(found))
        reach.walk(found)
        reach.finish()
        for index in range(len(self._base), len(reach.places)):
            place = reach.places[index]
            content = place.load()
            begins = _begins_with(place, content)
            if begins is not content:
                self.caller.image[index] = content
            self._base.append(begins)
            self._now.append(content)
            if any(type(value) in _TWINS for value in place.values(content)):
                self._twinned.append(index)

    def begin(self, actors: Iterable[Any]) -> None:
        """A run begins, in the caller's memory: processes begin with what is there now.

        But for what the caller has had sent back by processes of earlier runs: that is not theirs.
        Raises Limit when the actors reach too much.
        """
        if self._limit is not None:
            raise self._limit
        self._forget_earlier()
        self._take_over()  # what the maker of the actors has set
        self._see(actor for actor in actors if id(actor) not in self._reach.seen)

    def _forget_earlier(self) -> None:
        """What only the actors of the run before have reached is looked after no more."""
        places, seen, twinned = self._static
        reach = self._reach
        for index in range(places, len(self._base)):
            self.caller.image.pop(index, None)
        del reach.places[places:], reach.own[places:], self._base[places:], self._now[places:]
        while len(reach.seen) > seen:
            reach.seen.popitem()
        del self._twinned[twinned:]
        self._base[:] = self._began

    def enter(self, process: Process | None) -> None:
        """Put in place what this process has; None: what the caller has."""
        new = self.caller if process is None else process
        old = self._inside
        if new is old:
            return
        old.stamp, _uuid._last_timestamp = _uuid._last_timestamp, new.stamp
        _uuid._node = NODE + new.number
        self.note()
        if self._twinned and new is not self.caller and not new.image:
            self._fork(new)
        if old.image or new.image:
            now, places, base = self._now, self._reach.places, self._base
            for index in old.image.keys() | new.image.keys():
                content = new.image.get(index, base[index])
                if content is not now[index]:
                    places[index].store(content)
                    now[index] = content
        self._inside = new

    def note(self) -> None:
        """Take note of what the one inside has changed."""
        inside, now = self._inside, self._now
        for index, place in enumerate(self._reach.places):
            before = now[index]
            if place.holds(before):
                continue
            content = now[index] = inside.image[index] = place.load()
            if self._sends and inside is not self.caller and self._reach.own[index]:
                began = self._base[index]
                theirs = self.caller.image.get(index, began)
                self.caller.image[index] = place.sent(theirs, before, content, began)

    def _fork(self, process: Process) -> None:
        """A new process: like the caller's, but for what it draws itself and cannot inherit."""
        twins: dict[int, Any] = {}

        def twin(value: Any) -> Any:
            if type(value) not in _TWINS:
                return value
            if id(value) not in twins:
                twins[id(value)] = _twin(value) or value
            return twins[id(value)]

        for index in self._twinned:
            process.image[index] = self._reach.places[index].replace(self._base[index], twin)

    def settle(self) -> None:
        """What the caller has set by now is what processes begin with from here on."""
        self._take_over()
        self._began = list(self._base)

    def _take_over(self) -> None:
        for index, place in enumerate(self._reach.places):
            if not place.holds(self._now[index]):
                content = place.load()
                self.caller.image[index] = self._now[index] = self._base[index] = content

    def stop_sending(self, stop: bool) -> None:
        """From here on, changes are those of code that is being ended: nobody has them."""
        self.note()
        self._sends = not stop

    def close(self) -> None:
        """The caller's memory again, and code of others as it was."""
        self.enter(None)
        self.note()
        for index, place in enumerate(self._reach.places):
            content, begins = self._now[index], self._base[index]
            if self._reach.own[index]:
                if content is not begins:
                    _remember(place, content, begins)
            elif index < len(self._entry) and content is not self._entry[index]:
                place.store(self._entry[index])


def _spaces(roots: Iterable[Any]) -> Iterator[int]:
    """The namespaces in which the caller's own callables are written."""
    for root in roots:
        function = root
        while type(function) in (functools.partial, types.MethodType):
            function = function.func if type(function) is functools.partial else function.__func__
        if type(function) is not types.FunctionType:
            function = next(
                (
                    found
                    for base in _mro(type(function))
                    if type(found := type.__dict__["__dict__"].__get__(base).get("__call__"))
                    is types.FunctionType
                ),
                None,
            )
        if function is not None:
            yield id(function.__globals__)
