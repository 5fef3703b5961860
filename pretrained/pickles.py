"""How is a pickle read without running it? By a small machine of our own that builds records and calls nothing.

Python's unpickler imports what a file names and calls it. This one walks the opcodes itself: a global is looked up, by its
exact module and name, in a table of readers of ours, and whatever is not in the table ends the reading with its name.
Objects become records of their class name and state.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from pretrained.errors import BrokenFile, ForeignFile, UnsafePickle

MAX_OPCODES = 300_000
"""Three networks of 1024 px and their optimisers take less than a third of it."""
MAX_DEPTH = 200
"""Open brackets; networks have about 30."""
MAX_STACK = 20_000
"""Values that wait for their container; writers hand them over by the thousand."""
MAX_LINE = 65_536
"""Of the old text opcodes, in bytes."""
MAX_TEXT = 16_000_000
"""Of one piece of text: source code, at most."""
Reader: TypeAlias = Callable[..., Any] | None
"""Turns the arguments of a call into a value; None: the name may be mentioned, but not called."""
Readers: TypeAlias = Mapping[tuple[str, str], Reader]
Scalar: TypeAlias = str | int | float | bool | bytes | None


@dataclass(frozen=True)
class Global:
    """A name of the table, mentioned by a file."""

    module: str
    name: str


@dataclass(eq=False)
class Record:
    """What a file says about an object: its class and its state, never the object."""

    name: str
    """Of the class."""
    arguments: tuple[Any, ...] = ()
    state: Any = None


class _Stream:
    """A file object over memory, as ``pickletools`` wants it; lines have a limit."""

    def __init__(self, data: memoryview, at: int) -> None:
        self.data, self.at = data, at

    def read(self, size: int) -> bytes:
        part = bytes(self.data[self.at : self.at + size])
        self.at += len(part)
        return part

    def readline(self) -> bytes:
        end = bytes(self.data[self.at : self.at + MAX_LINE]).find(b"\n")
        return self.read(end + 1 if end >= 0 else MAX_LINE)

    def tell(self) -> int:
        return self.at


class _Mark:
    """Where a container begins on the stack."""


_MARK = _Mark()
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
    "MARK": lambda: _MARK,
}
_BYTES = {"SHORT_BINBYTES": 1, "BINBYTES": 4, "BINBYTES8": 8, "BYTEARRAY8": 8}
"""Opcodes of bytes, and how many bytes the length before them takes."""
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
# Warning: for whoever turns the warnings of pickletools into errors.
_MALFORMED = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    RuntimeError,
    MemoryError,
    Warning,
)


class _Machine:
    """The stack and the memo of one pickle."""

    def __init__(self, data: memoryview, readers: Readers, persistent: Callable[[Any], Any] | None) -> None:
        self.data, self.readers, self.persistent = data, readers, persistent
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.marks = self.copied = 0

    def run(self, at: int) -> tuple[Any, int]:
        """Read one pickle; return its value and where the next one begins."""
        stream: Any = _Stream(self.data, at)
        for number, (opcode, argument, position) in enumerate(pickletools.genops(stream)):
            if number >= MAX_OPCODES:
                raise UnsafePickle(f"a pickle of more than {MAX_OPCODES} opcodes, which no network needs")
            self.step(opcode.name, argument, position or 0)
            if self.marks > MAX_DEPTH or len(self.stack) > MAX_STACK:
                raise UnsafePickle(f"a pickle nested deeper than {MAX_DEPTH}, or with more than {MAX_STACK} values at once")
        if len(self.stack) != 1:
            raise BrokenFile("a pickle that ends with values left over")
        return self.pop(), stream.at

    def step(self, opcode: str, argument: Any, position: int) -> None:
        """Carry out one opcode."""
        match opcode:
            case "BINPUT" | "LONG_BINPUT" | "PUT":
                self.memo[argument] = self.top()
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.top()
            case "BINGET" | "LONG_BINGET" | "GET":
                self.stack.append(self.memo[argument])
            case _ if opcode in _CONSTANTS:
                self.marks += opcode == "MARK"
                self.stack.append(_CONSTANTS[opcode]())
            case _ if opcode in _BYTES:
                start = position + 1 + _BYTES[opcode]
                self.stack.append(self.data[start : start + len(argument)])
            case _ if opcode in _TUPLES:
                self.stack.append(tuple([self.pop() for _ in range(_TUPLES[opcode])][::-1]))
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "TUPLE" | "LIST" | "DICT" | "FROZENSET":
                self.stack.append(container(opcode, self.pop_to_mark()))
            case "APPEND" | "APPENDS" | "SETITEM" | "SETITEMS" | "ADDITEMS":
                self.extend(opcode)
            case "POP" | "POP_MARK" | "DUP":
                self.shuffle(opcode)
            case "GLOBAL" | "STACK_GLOBAL" | "REDUCE" | "NEWOBJ" | "NEWOBJ_EX" | "OBJ" | "INST" | "BUILD":
                self.construct(opcode, argument)
            case "PERSID" | "BINPERSID":
                self.refer(self.pop() if opcode == "BINPERSID" else argument)
            case "EXT1" | "EXT2" | "EXT4" | "NEXT_BUFFER" | "READONLY_BUFFER":
                raise UnsafePickle(f"a pickle with {opcode}, which no file of weights uses")
            case _:  # Numbers and text: all that is left.
                if isinstance(argument, str) and len(argument) > MAX_TEXT:
                    raise UnsafePickle(f"a pickle with a text of {len(argument)} letters, which no network needs")
                self.stack.append(argument)

    def top(self) -> Any:
        """Return the last value."""
        if not self.stack or self.stack[-1] is _MARK:
            raise BrokenFile("a pickle that takes a value where there is none")
        return self.stack[-1]

    def pop(self) -> Any:
        """Take the last value."""
        self.top()
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        """Take the values since the last mark, and the mark."""
        items = []
        while self.stack and self.stack[-1] is not _MARK:
            items.append(self.stack.pop())
        if not self.stack:
            raise BrokenFile("a pickle that closes a bracket which it never opened")
        self.stack.pop()
        self.marks -= 1
        return items[::-1]

    def shuffle(self, opcode: str) -> None:
        """Drop values, or repeat one."""
        if opcode == "DUP":
            self.stack.append(self.top())
        elif opcode == "POP" and self.stack and self.stack[-1] is not _MARK:
            self.stack.pop()
        else:
            self.pop_to_mark()

    def extend(self, opcode: str) -> None:
        """Put items into a list, a dictionary or a set, and into nothing else: others could have methods that run."""
        items = self.pop_to_mark() if opcode.endswith("S") else [self.pop() for _ in range(1 + (opcode == "SETITEM"))][::-1]
        target = self.top()
        match opcode.rstrip("S"), target:
            case "APPEND", list():
                target.extend(items)
            case "SETITEM", dict():
                target.update(container("DICT", items))
            case "ADDITEM", set():
                target.update(container("FROZENSET", items))
            case _:
                raise UnsafePickle(f"a pickle that puts items into a {_kind(target)}")

    def construct(self, opcode: str, argument: Any) -> None:
        """Look a global up, call its reader, or give an object its state."""
        match opcode:
            case "GLOBAL":
                self.stack.append(self.known(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                name, module = self.pop(), self.pop()
                self.stack.append(self.known(module, name))
            case "REDUCE" | "NEWOBJ":
                arguments = self.pop()
                self.stack.append(self.call(self.pop(), arguments))
            case "NEWOBJ_EX":
                keywords, arguments = self.pop(), self.pop()
                if keywords:
                    raise UnsafePickle("a pickle that calls with keywords, which no file of weights does")
                self.stack.append(self.call(self.pop(), arguments))
            case "OBJ":
                target, *items = self.pop_to_mark()
                self.stack.append(self.call(target, tuple(items)))
            case "INST":
                target = self.known(*argument.split(" ", 1))
                self.stack.append(self.call(target, tuple(self.pop_to_mark())))
            case "BUILD":
                state, target = self.pop(), self.top()
                # A dictionary may have attributes, of which none matters (torch: _metadata).
                if isinstance(target, Record):
                    target.state = state
                elif not isinstance(target, dict):
                    raise UnsafePickle(f"a pickle that sets the state of a {_kind(target)}")

    def known(self, module: Any, name: Any) -> Global:
        """Return a global of the table.

        Raises:
            UnsafePickle: it is not in the table.
            ForeignFile: it tells that the file is TensorFlow's.
        """
        if not isinstance(module, str) or not isinstance(name, str):
            raise UnsafePickle("a pickle whose global has no name")
        if module == "dnnlib.tflib.network":
            raise ForeignFile(
                "a TensorFlow pickle of NVIDIA's: convert it with legacy.py of stylegan2-ada-pytorch (StyleGAN1 cannot be)"
            )
        if (module, name) not in self.readers:
            raise UnsafePickle(f"it looks like a pickle that wants to run {module[:80]}.{name[:80]}, which no network needs")
        return Global(module, name)

    def call(self, target: Any, arguments: Any) -> Any:
        """Let the reader of a global make a value of the arguments."""
        if not isinstance(target, Global) or not isinstance(arguments, tuple):
            raise UnsafePickle(f"a pickle that calls a {_kind(target)} with a {_kind(arguments)}")
        reader = self.readers[target.module, target.name]
        if reader is None:
            raise UnsafePickle(f"a pickle that calls {target.module}.{target.name}, which is only to be mentioned")
        # One long list can be handed over and copied any number of times.
        self.copied += sum(len(value) for value in arguments if isinstance(value, list | dict | set | tuple))
        self.copied += sum(len(value) // 256 for value in arguments if isinstance(value, str))
        if self.copied > MAX_OPCODES:
            raise UnsafePickle(f"a pickle that copies more than {MAX_OPCODES} values, which no network needs")
        return reader(*arguments)

    def refer(self, reference: Any) -> None:
        """Resolve a reference to something outside the pickle."""
        if self.persistent is None:
            raise UnsafePickle("a pickle with persistent ids, which this kind of file does not use")
        self.stack.append(self.persistent(reference))


def unpickle(
    data: memoryview, readers: Readers, persistent: Callable[[Any], Any] | None = None, at: int = 0
) -> tuple[Any, int]:
    """Read one pickle from memory; return its value and where the next one begins. Nothing of it is run.

    Args:
        data: the bytes. Large parts of the value are views of them.
        readers: the table of globals, by exact module and name.
        persistent: resolves persistent ids; without it they are refused.
        at: where the pickle begins.

    Raises:
        UnsafePickle: a global that is not in the table, or more of anything than networks need.
        ForeignFile: a TensorFlow pickle.
        BrokenFile: no pickle, or a damaged one.
    """
    try:
        return _Machine(data, readers, persistent).run(at)
    except _MALFORMED as error:
        raise BrokenFile(f"a damaged pickle, or none: {str(error)[:200] or type(error).__name__}") from error


def container(kind: str, items: list[Any]) -> Any:
    """Make a LIST, TUPLE, DICT or FROZENSET; keys are plain, since the hash of nested tuples can take forever.

    Raises:
        UnsafePickle: a key that is neither text nor number.
    """
    if kind == "LIST":
        return items
    if kind == "TUPLE":
        return tuple(items)
    keys = [_key(item) for item in (items[::2] if kind == "DICT" else items)]
    return dict(zip(keys, items[1::2], strict=True)) if kind == "DICT" else set(keys)


def _key(value: Any) -> Scalar:
    if isinstance(value, memoryview):
        return bytes(value)
    if value is None or isinstance(value, str | int | float | bool | bytes):
        return value
    raise UnsafePickle(f"a pickle with a {_kind(value)} as a key")


def _kind(value: Any) -> str:
    """Name the kind of a value for a message, never the value, which may be endless."""
    return value.name[:80] if isinstance(value, Record | Global) else type(value).__name__
