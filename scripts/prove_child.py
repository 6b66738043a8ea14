"""Run by the environment's own Python: import modules and load extensions, one JSON line each. Standard library only.

argv: a JSON object {"modules": […], "extensions": […], "packages": […], "site": …, "pretend": bool}. A module that
kills the process is the last line's "start"; the parent goes on behind it.
"""

import contextlib
import ctypes
import importlib
import importlib.metadata
import json
import os
import sys
import types
from collections.abc import Callable


def say(**row: object) -> None:
    """Write one line of the protocol to the descriptor that the modules cannot reach."""
    os.write(CHANNEL, (json.dumps(row) + "\n").encode())


def pretend() -> None:
    """Let torch answer as on a host with one H100: what a module asks before it chooses its imports."""
    import torch  # the environment's

    properties = types.SimpleNamespace(
        name="NVIDIA H100 80GB HBM3", major=9, minor=0, total_memory=80 << 30, multi_processor_count=132, warp_size=32
    )
    torch.cuda.is_available = lambda: True
    torch.cuda.device_count = lambda: 1
    torch.cuda.current_device = lambda: 0
    torch.cuda.get_device_capability = lambda *_: (9, 0)
    torch.cuda.get_device_name = lambda *_: properties.name
    torch.cuda.get_device_properties = lambda *_: properties


def attempt(name: str) -> None:
    """Import one module and say how that went."""
    say(start=name)
    try:
        importlib.import_module(name)
    except BaseException as error:  # noqa: BLE001  # SystemExit too: whatever a module does is what is reported
        say(name=name, error=f"{type(error).__name__}: {error}"[:600], missing=getattr(error, "name", None))
    else:
        say(name=name)


def bind(path: str, depth: int = 8) -> None:
    """Load a library with all symbols; one that lies beside it is loaded first, as its package does.

    ``libtorchaudio.so: cannot open shared object file: No such file or directory``
    """
    try:
        ctypes.CDLL(path, mode=os.RTLD_NOW | os.RTLD_GLOBAL)
    except OSError as error:
        beside = os.path.join(os.path.dirname(path), str(error).partition(": cannot open shared object file")[0])
        if not depth or beside == path or not os.path.isfile(beside):
            raise
        bind(beside, depth - 1)
        bind(path, depth - 1)


def bind_as_imported(path: str, packages: list[str]) -> None:
    """Load a library with all symbols; where one is in a library that its package loads, the packages come first.

    ``undefined symbol: nvte_layernorm_bwd`` is in libtransformer_engine.so, which transformer_engine loads globally.
    """
    try:
        bind(path)
    except OSError as error:
        if "undefined symbol" not in str(error):
            raise
        for name in packages:
            with contextlib.suppress(Exception):
                importlib.import_module(name)
        bind(path)


def load(path: str, site: str, packages: list[str]) -> None:
    """Load one extension in a child of its own, every symbol bound now; one that dies is imported as its module.

    An extension may need what its package's own imports register first (vllm._C needs vllm._core_C).
    """
    if forked(lambda: bind_as_imported(path, packages), path):
        name = os.path.relpath(path, site).split(".")[0].replace(os.sep, ".")
        signal = forked(lambda: importlib.import_module(name), path)
        if signal:
            say(extension=path, error=f"died of signal {signal}")


def forked(action: Callable[[], object], path: str) -> int:
    """Do it in a child and report what came out; give the signal that ended the child, or 0."""
    child = os.fork()
    if not child:
        try:
            action()
        except Exception as error:  # noqa: BLE001  # whatever an extension raises is what is reported
            say(extension=path, error=str(error)[:600])
        else:
            say(extension=path)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def main() -> None:
    """Do what the first argument asks."""
    order = json.loads(sys.argv[1])
    if order.get("pretend"):
        pretend()
    if order.get("extensions"):
        importlib.import_module("torch")
    for path in order.get("extensions", []):
        load(path, order["site"], order.get("packages", []))
    for name in order.get("modules", []):
        attempt(name)


if __name__ == "__main__":
    CHANNEL = os.dup(1)
    os.dup2(2, 1)
    main()
    sys.stdout.flush()
    os._exit(0)
