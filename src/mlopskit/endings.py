"""Who ends the program: a handler of its signals, or the code that was called in the middle of it.

Code of a user's that is called for its answer must not end the program by ``sys.exit``. A handler
of SIGTERM that raises `SystemExit` may, and it runs in the middle of whatever code is running.
"""

from __future__ import annotations

import signal
import traceback
from functools import partial
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import CodeType


def handlers() -> frozenset[CodeType]:
    """Return the code of the program's signal handlers, to be asked for before the user's."""
    found = (_code(signal.getsignal(number)) for number in signal.valid_signals())
    return frozenset(code for code in found if code is not None)


def came_through(error: BaseException, codes: frozenset[CodeType]) -> bool:
    """Tell whether one of these handlers raised an exception, or was passed by it."""
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_code in codes for frame, _ in frames)


def exit_code(error: SystemExit) -> int:
    """Return the code that the program would have ended with."""
    given = 0 if error.code is None else error.code
    return given & 0xFF if isinstance(given, int) else 1


def _code(handler: Any) -> CodeType | None:
    """Return the code that runs first when a handler is called; None if it is not Python."""
    while isinstance(handler, partial):
        handler = handler.func
    if not callable(handler):  # The system's own, or none.
        return None
    if not isinstance(handler, FunctionType | MethodType):
        handler = type(handler).__call__
    return getattr(handler, "__code__", None)  # A method has that of its function.
