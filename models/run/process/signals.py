"""Requests to stop: Ctrl-C and SIGTERM end a script at any moment.

Python raises an error of a signal wherever the main thread is. Callbacks of C code, such as those of
LLVM while numba compiles, and destructors drop it; LLVM's own binding cannot bear it. So a thread asks
again until the main thread unwinds.
"""

import _thread
import signal
import socket
import sys
import threading
import time
from types import FrameType
from typing import Any

import models

# Seconds after which the main thread is asked again.
_AGAIN = 0.03
# Between a call of this module's C code and the next line it holds memory that an error would make it
# free twice.
_FRAGILE = "llvmlite.binding"
# Seconds that the main thread has to end, such as in a long call of C code.
_PATIENCE = 8.0
# Seconds within which a second signal is the same request: wrappers pass on what a terminal sends to
# all processes.
_SAME = 0.5


def may_raise(kind: type[BaseException], frame: FrameType | None) -> bool:
    """Whether the handler of a signal may raise an error of a kind.

    Not where the main thread cleans up after such an error, nor in the binding of LLVM.

    Args:
        frame: of the main thread, as the handler gets it.
    """
    error = sys.exception()
    while error is not None:
        if isinstance(error, kind):
            return False
        error = error.__context__
    while frame is not None:
        if str(frame.f_globals.get("__name__")).startswith(_FRAGILE):
            return False
        frame = frame.f_back
    return True


def _signal_main(number: int) -> None:
    """Sends a signal to the main thread; it ends waits of the system as well."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident, number)
    else:  # Windows
        _thread.interrupt_main(number)


def restore_handlers() -> None:
    """Called after an import that has put handlers of its own in the place of Python's."""
    for number in (signal.SIGINT, signal.SIGTERM):
        handler = signal.getsignal(number)
        if callable(handler) and threading.current_thread() is threading.main_thread():
            signal.signal(number, handler)


class StopRequests:
    """A block that Ctrl-C and SIGTERM end with KeyboardInterrupt; a second signal ends the process."""

    def __init__(self):
        self.number: int | None = None
        """The signal that asked; None without a request."""
        self._since = 0.0
        self._asked_again = False
        self._settled = False
        self._over = threading.Event()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequests":
        self._hook = sys.unraisablehook
        sys.unraisablehook = self._show_unraisable
        self._ear, self._mouth = socket.socketpair()
        self._mouth.setblocking(False)
        self._mouth_before = signal.set_wakeup_fd(self._mouth.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._insist, daemon=True).start()
        for number in (signal.SIGINT, signal.SIGTERM):
            # A shell lets programs in the background ignore Ctrl-C.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._hear)
        _BLOCKS.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        _BLOCKS.remove(self)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._mouth_before)
        self._mouth.close()
        if self.number is None:
            sys.unraisablehook = self._hook  # else destructors may still drop the error

    def settle(self) -> None:
        """The request was what the program waited for, and it goes on."""
        self._settled = True
        self.number = None

    def _hear(self, number: int, frame: FrameType | None) -> None:
        """The handler, in the main thread."""
        again = self._asked_again
        self._asked_again = False
        if self._over.is_set():
            return
        if self.number is None:
            if again:
                return  # settled since
            self._settled = False
            self.number = number
            self._since = time.monotonic()
        elif not again:
            if time.monotonic() - self._since > _SAME:
                models.end_at_once(self.number)
            return
        if may_raise(KeyboardInterrupt, frame):
            raise KeyboardInterrupt

    def _insist(self) -> None:
        """Asks the main thread again and again, in a thread of its own."""
        while number := self._ear.recv(1):
            if number[0] in self._before:
                self._ask_again(number[0])

    def _ask_again(self, number: int) -> None:
        last = time.monotonic() + _PATIENCE
        while not (self._over.wait(_AGAIN) or self._settled):
            if time.monotonic() > last:
                models.end_at_once(number)
            # Before the handler was called the signal itself still waits.
            if self.number is not None:
                self._asked_again = True
                _signal_main(number)

    def _show_unraisable(self, dropped: Any) -> None:
        """Python's report of an error that was dropped, apart from those that signals raise."""
        if self.number is None and issubclass(dropped.exc_type, Exception):
            self._hook(dropped)


_BLOCKS: list[StopRequests] = []


def settle_stop() -> None:
    """Called where KeyboardInterrupt is the expected end of a wait: the script goes on."""
    for block in _BLOCKS:
        block.settle()
