"""Nothing waits for ever, and no probe hides another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from envcheck.codec import Unknown
from envcheck.errors import HostError

T = TypeVar("T")
PATIENCE_SECONDS = 30.0


class Later(Generic[T]):
    """A call that runs in a thread of its own; its result is the call's, or Unknown with the reason."""

    def __init__(self, call: Callable[[], T], *, name: str) -> None:
        """Start the call."""
        import threading  # only hosts with a driver need it

        self._call = call
        self._name = name
        self._result: T | Unknown | None = None
        # A daemon: a call that hangs inside a driver must not keep this program from ending.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = guarded(self._call)
        except HostError as error:
            self._result = Unknown(str(error))

    def result(self, patience: float = PATIENCE_SECONDS) -> T | Unknown:
        """Wait for the result, at most ``patience`` seconds."""
        self._thread.join(patience)
        if self._thread.is_alive():
            return Unknown(f"{self._name} did not answer within {patience:g} s")
        return self._result  # type: ignore[return-value]  # set before the thread ends


def guarded(call: Callable[[], T]) -> T | Unknown:
    """Give what the call gives; an exception becomes Unknown, so that one probe never hides another."""
    try:
        return call()
    except HostError:  # the host itself is gone: no fact can be read any more
        raise
    except Exception as error:  # noqa: BLE001  # any failure of a probe is a fact of its own
        return Unknown(f"the probe failed: {type(error).__name__}: {error}")
