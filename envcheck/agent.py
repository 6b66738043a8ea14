"""Answer requests about the machine on which this runs; it is sent into containers and must run on Python 3.6.

A request is a line ``op<TAB>argument<TAB>...`` with escapes; an answer is ``0 <base64>``, or an errno and why.
"""

import base64
import glob
import os
import shutil
import subprocess
import sys

ESCAPES = {"\\": "\\", "t": "\t", "n": "\n"}


def unescaped(text: str) -> str:
    """Undo the escapes of an argument."""
    parts = iter(text)
    return "".join(ESCAPES.get(next(parts, ""), "") if letter == "\\" else letter for letter in parts)


def lines(names: "list[str]") -> bytes:
    """Join names as lines."""
    return os.fsencode("\n".join(sorted(names)))


def environ() -> bytes:
    """Give the environment, NUL between variables."""
    return b"\0".join(os.fsencode(name + "=" + value) for name, value in os.environ.items())


def read(path: str, offset: str, size: str) -> bytes:
    """Give a range of a file."""
    with open(path, "rb") as file:
        if int(offset):
            file.seek(int(offset))
        return file.read(int(size))


def existing(path: str) -> str:
    """Nearest ancestor that exists."""
    while path != "/" and not os.path.exists(path):
        path = os.path.dirname(path) or "/"
    return path


def free(path: str) -> bytes:
    """Free bytes and inodes."""
    status = os.statvfs(existing(path))
    return f"{status.f_bavail * status.f_frsize} {status.f_favail}".encode()


def run(timeout: str, *argv: str) -> bytes:
    """Run a program: its exit code, the length of its output, then output and errors."""
    variables = dict(os.environ, LC_ALL="C", LANGUAGE="C")
    found = shutil.which(argv[0])
    if found is None:
        raise FileNotFoundError(2, "not found on PATH", argv[0])
    with subprocess.Popen(
        [found, *argv[1:]],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=variables,
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=float(timeout))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            raise TimeoutError(110, f"did not answer within {timeout} s", argv[0]) from None
    return f"{process.returncode} {len(out)}\n".encode() + out + err


def yes(answer: bool) -> bytes:  # noqa: FBT001  # a conversion
    """Give 1 or 0."""
    return b"1" if answer else b"0"


OPERATIONS = {
    "environ": environ,
    "read": read,
    "size": lambda path: str(os.stat(path).st_size).encode(),
    "exists": lambda path: yes(os.path.exists(path)),
    "program": lambda path: yes(os.path.isfile(path) and os.access(path, os.X_OK)),
    "realpath": lambda path: os.fsencode(os.path.realpath(path)),
    "listdir": lambda path: lines(os.listdir(path)),
    "glob": lambda pattern: lines(glob.glob(pattern)),
    "writable": lambda path: yes(os.access(existing(path), os.W_OK)),
    "free": free,
    "run": run,
}


def answer(line: str) -> bytes:
    """Answer one request."""
    name, *arguments = [unescaped(part) for part in line.rstrip("\n").split("\t")]
    try:
        return b"0 " + base64.b64encode(OPERATIONS[name](*arguments))  # type: ignore[operator]  # the table's functions differ
    except OSError as error:
        return f"{error.errno or 5} ".encode() + base64.b64encode((error.strerror or str(error)).encode())
    except Exception as error:  # noqa: BLE001  # one bad request must not end the rest
        return b"5 " + base64.b64encode((type(error).__name__ + ": " + str(error)).encode())


def main() -> None:
    """Answer until the requests end."""
    sys.stdout.buffer.write(b"python base64\n")
    sys.stdout.buffer.flush()
    for raw in iter(sys.stdin.buffer.readline, b""):
        sys.stdout.buffer.write(answer(os.fsdecode(raw)) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
