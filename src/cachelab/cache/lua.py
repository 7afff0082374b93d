"""What a server gives its Lua scripts and fakeredis does not: globals, libraries, plain errors."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Callable
from functools import reduce
from typing import Any

from fakeredis._helpers import SimpleError
from fakeredis.commands_mixins.scripting_mixin import LUA_MODULE, _lua_cjson_null

# What is not there cannot be read, and nothing can be added: a script that forgets `local` fails,
# and the next one finds everything as it was. What reaches out of a script is not there.
GLOBALS = """
return function(sha1hex, encode, decode, draw, seed, bits, refuse)
  redis.sha1hex, cjson.encode, cjson.decode = sha1hex, encode, decode
  redis.REDIS_VERSION, redis.REDIS_VERSION_NUM = '7.2.4', 0x070204
  redis.replicate_commands = function() return true end
  server, bit, math.random, math.randomseed = redis, bits, draw, seed
  for _, name in ipairs({'io', 'require', 'module', 'package', 'dofile', 'loadfile', 'python',
                         'newproxy', 'print', 'getfenv', 'setfenv'}) do  -- lupa needs `debug`
    _G[name] = nil
  end
  for _, name in ipairs({'cmsgpack', 'struct'}) do
    _G[name] = setmetatable({}, {__index = function(_, field) refuse(name, field) end})
  end
  os = {clock = function() refuse('os', 'clock') end}
  local error = error
  setmetatable(_G, {
    __index = function(_, name)
      error("Script attempted to access nonexistent global variable '" .. tostring(name) .. "'", 2)
    end,
    __newindex = function() error('Attempt to modify a readonly table', 2) end,
  })
end
"""

RUNTIME = re.compile(
    r"ERR Error running script \(call to f_\w+\): @user_script:\?: (error loading code: )?"
    r'\[string "<python>"\]:(\d+): (.*?)(?:\nstack traceback:.*)?',
    re.DOTALL,
)
# fakeredis's words, and a server's.
WORDS = {
    "ERR This Redis command is not allowed from scripts": (
        "ERR This Redis command is not allowed from script"
    ),
}


class Chance:
    """`math.random`: drawn as Python's `random`, which the stage seeds, until a script seeds it."""

    def __init__(self) -> None:
        self.source: Any = random

    def seed(self, number: float) -> None:
        """`math.randomseed(number)`, until the end of the script."""
        self.source = random.Random(number)

    def draw(self, *bounds: float) -> float:
        """`math.random()`, `(most)` or `(least, most)`."""
        drawn: float = self.source.random()
        if not bounds:
            return drawn
        least, most = (1, int(bounds[0])) if len(bounds) == 1 else map(int, bounds[:2])
        return int(drawn * (most - least + 1)) + least


def prepare(lua: Any, chance: Chance, decode: Callable[[bytes], Any], refuse: Any) -> None:
    """Give a new runtime of fakeredis what a server's has, or `refuse(name)` it."""

    def decoded(text: Any) -> Any:
        try:
            return decode(text)
        except ValueError:
            said = "Expected value but found invalid token at character 1"
            raise LUA_MODULE.LuaError(f'[string "<python>"]:1: {said}') from None

    lua.execute(GLOBALS)(
        lambda text: hashlib.sha1(_bytes(text)).hexdigest().encode(),
        lambda value: encoded(value).encode(),
        decoded,
        chance.draw,
        chance.seed,
        lua.table_from(BITS),
        lambda name, field: refuse(f"Lua's {name.decode()}.{field.decode()}"),
    )


def plain(said: str) -> str:
    """An error of a script in a server's words: the line, what is wrong, no stack."""
    found = RUNTIME.fullmatch(said)
    if found is None:
        return WORDS.get(said, said)
    kind = "Error compiling script (new function): " if found[1] else ""
    return f"ERR {kind}user_script:{found[2]}: {found[3]}"


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else b"%.17g" % value


# cjson ----------------------------------------------------------------------------------------


def encoded(value: Any) -> str:
    """`cjson.encode`: 14 digits, "/" escaped, an empty table as {}."""
    if value is None or value is _lua_cjson_null:
        return "null"
    if isinstance(value, bytes):
        return json.dumps(value.decode(errors="replace"), ensure_ascii=False).replace("/", "\\/")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return f"{value:.14g}"
    if LUA_MODULE.lua_type(value) != "table":
        raise SimpleError(f"ERR Cannot serialise {LUA_MODULE.lua_type(value)}: type not supported")
    keys = list(value.keys())
    if keys and all(isinstance(key, int) and 0 < key <= max(10, 2 * len(keys)) for key in keys):
        return f"[{','.join(encoded(value[at + 1]) for at in range(max(keys)))}]"
    names = [f'"{key:.14g}"' if isinstance(key, (int, float)) else encoded(key) for key in keys]
    pairs = zip(names, map(encoded, value.values()), strict=True)
    return f"{{{','.join(f'{name}:{item}' for name, item in pairs)}}}"


# bit: whole numbers of 32 bits ------------------------------------------------------------------

_ALL = 0xFFFFFFFF


def _signed(number: float) -> int:
    low = round(number) & _ALL
    return low - (1 << 32) if low >> 31 else low


def _folded(do: Callable[[int, int], int]) -> Callable[..., int]:
    return lambda *numbers: _signed(reduce(do, map(round, numbers)))


def _rotated(number: float, by: float) -> int:
    low, by = round(number) & _ALL, round(by) & 31
    return _signed(low << by | low >> (32 - by))


BITS: dict[bytes, Callable[..., Any]] = {
    b"tobit": _signed,
    b"bnot": lambda number: _signed(~round(number)),
    b"band": _folded(lambda one, other: one & other),
    b"bor": _folded(lambda one, other: one | other),
    b"bxor": _folded(lambda one, other: one ^ other),
    b"lshift": lambda number, by: _signed(round(number) << (round(by) & 31)),
    b"rshift": lambda number, by: _signed((round(number) & _ALL) >> (round(by) & 31)),
    b"arshift": lambda number, by: _signed(_signed(number) >> (round(by) & 31)),
    b"rol": _rotated,
    b"ror": lambda number, by: _rotated(number, -by),
    b"bswap": lambda number: _signed(
        int.from_bytes((round(number) & _ALL).to_bytes(4, "little"), "big")
    ),
    b"tohex": lambda number, digits=8: (
        b"%0*x" % (round(digits), round(number) & ((1 << 4 * round(digits)) - 1))
    ),
}
