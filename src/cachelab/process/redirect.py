"""Sends a function or a method that is written in C to one of ours, for all who hold it.

`time.monotonic` may be bound to a name, a default or an attribute anywhere: to replace every such
reference one would have to find them all. So the function itself is redirected: its C struct is
made to call a Python function with the same arguments, and is put back after the run. Nothing
that refers to it changes. The layout of that struct is CPython's since 3.8.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable, Mapping
from types import BuiltinFunctionType
from typing import Any


class _Definition(ctypes.Structure):
    """PyMethodDef."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("call", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


class _Function(ctypes.Structure):
    """PyCFunctionObject, from behind the head that every object has."""

    _fields_ = (
        ("definition", ctypes.c_void_p),
        ("bound_to", ctypes.c_void_p),
        ("module", ctypes.c_void_p),
        ("weak_references", ctypes.c_void_p),
        ("fast_call", ctypes.c_void_p),
    )


_HEAD = object.__basicsize__
_ANY_ARGUMENTS = 0x0001 | 0x0002  # METH_VARARGS | METH_KEYWORDS
_CALL = ctypes.cast(ctypes.pythonapi.PyObject_Call, ctypes.c_void_p).value
_forget_cached_methods = ctypes.pythonapi.PyType_Modified
_forget_cached_methods.argtypes = (ctypes.py_object,)
_forget_cached_methods.restype = None
_keep = ctypes.pythonapi.Py_IncRef
_keep.argtypes = (ctypes.py_object,)
_keep.restype = None


class Redirected:
    """A C function whose calls go to `target` from `on` until `off`; `real` still is the old one.

    PyObject_Call takes what a C function with these flags takes: the object that it is bound to,
    which here is `target`, the arguments, and the keywords.
    """

    def __init__(self, function: Any, target: Callable[..., Any]) -> None:
        self._struct = _Function.from_address(id(function) + _HEAD)
        found = _Definition.from_address(self._struct.definition)
        if found.name != function.__name__.encode():
            raise ImportError("This Python lays out functions in another way than CPython 3.11.")
        self._function, self._target = function, target
        self._definition = _Definition(found.name, _CALL, _ANY_ARGUMENTS, found.doc)
        self._at, self._to = ctypes.addressof(self._definition), id(target)
        _keep(target)  # the struct refers to it, as the garbage collector will see

    def on(self) -> None:
        """Redirect. Three plain stores: no other thread gets its turn between them."""
        struct = self._struct
        self._old = struct.definition, struct.bound_to, struct.fast_call
        struct.definition, struct.bound_to, struct.fast_call = self._at, self._to, None

    def off(self) -> None:
        """As it was."""
        struct = self._struct
        struct.definition, struct.bound_to, struct.fast_call = self._old


class Original:
    """A C function as it is without redirection: the same definition, another object."""

    def __new__(cls, function: Any) -> Any:
        make = ctypes.pythonapi.PyCFunction_NewEx
        make.argtypes = (ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)
        make.restype = ctypes.py_object
        struct = _Function.from_address(id(function) + _HEAD)
        return make(struct.definition, function.__self__, None)


class Methods:
    """Methods of a type written in C that are ours from `on` until `off`."""

    def __init__(self, kind: type, ours: Mapping[str, Any]) -> None:
        (self._own,) = gc.get_referents(vars(kind))  # the dict behind the read-only view
        self._kind = kind
        self._real = {name: self._own[name] for name in ours if name in self._own}
        self._ours = {name: ours[name] for name in self._real}

    def on(self) -> None:
        """Ours."""
        self._own.update(self._ours)
        _forget_cached_methods(self._kind)

    def off(self) -> None:
        """Those of the type."""
        self._own.update(self._real)
        _forget_cached_methods(self._kind)


def is_builtin(value: Any) -> bool:
    """Whether a Redirected can be made of it."""
    return type(value) is BuiltinFunctionType
