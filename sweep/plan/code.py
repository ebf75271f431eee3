"""Bodies of a user's own: finding their source, keeping it in the store, and running it, if --allow-code says so.

A run names such a body by its class and the hash of the file, so the same name is the same code; the store keeps the file
under its hash, and everything that trains or evaluates takes it from there. See `models.own`.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from models import ModelConfig
from sweep.errors import InputError
from sweep.files import temporary_beside

# The folder of a store that has the code which may run, in the environment, so that child processes have it too.
ALLOWED = "ISOSWEEP_CODE"
FOLDER = "code"
HASH_DIGITS = 16

_sources: dict[str, bytes] = {}  # of bodies found by `adopt`, by their names


def allow(store: Path) -> None:
    """Let this process and its children run the bodies that a configuration names, or that `store` has."""
    os.environ[ALLOWED] = str((store / FOLDER).resolve())


def is_allowed() -> bool:
    return ALLOWED in os.environ


def adopt(body: str) -> str:
    """The name in a run, "Class@hash", of the body that a configuration calls FILE.py:Class or path.to.file:Class; others as
    they are. Raises InputError if code is not allowed, or there is no such file or class, or it is no body."""
    path, colon, kind = body.partition(":")
    if not colon:
        return body
    file = Path(os.path.expanduser(path) if path.endswith(".py") else path.replace(".", "/") + ".py")
    if not is_allowed():
        raise InputError(f"model.body={body} is code: read it, and give --allow-code to run it")
    try:
        source = file.read_bytes()
    except OSError as error:
        raise InputError(f"model.body={body}: {file} cannot be read ({error.strerror}); name FILE.py:Class") from error
    name = _name(source, kind)
    if name not in _sources:
        _run(name, source, str(file))
        _sources[name] = source
    return name


def keep(shapes: Iterable[ModelConfig], store: Path) -> None:
    """Write the sources of the bodies that were adopted for `shapes` into a store, for those who train them."""
    for name in {shape.body for shape in shapes} & _sources.keys():
        path = _path(store / FOLDER, name)
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_beside(path)
        temporary.write_bytes(_sources[name])
        temporary.rename(path)


def require(model: ModelConfig) -> None:
    """Load the body of `model` if it is a user's own, before the module is made. Raises InputError if code is not allowed, or
    the store's copy of it is gone or changed."""
    if not model.own_body:
        return
    from models.own import CLASSES

    if model.body in CLASSES:
        return
    if not is_allowed():
        raise InputError(f"model.body={model.body} is code that was kept with the sweep; give --allow-code to run it")
    path = _path(Path(os.environ[ALLOWED]), model.body)
    try:
        source = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}, the body of the model, cannot be read ({error.strerror}); launch the sweep again") from error
    if _name(source, model.body.partition("@")[0]) != model.body:
        raise InputError(f"{path} is not what model.body={model.body} was; delete it, and launch the sweep again")
    _run(model.body, source, str(path))


def _path(folder: Path, name: str) -> Path:
    return folder / f"{name.partition('@')[2]}.py"


def _name(source: bytes, kind: str) -> str:
    import hashlib

    return f"{kind}@{hashlib.sha256(source).hexdigest()[:HASH_DIGITS]}"


def _run(name: str, source: bytes, file: str) -> None:
    """Run a source and register its class."""
    from models.own import register

    module, kind = ModuleType("isosweep_body"), name.partition("@")[0]
    module.__file__ = file
    try:
        exec(compile(source, file, "exec"), module.__dict__)
    except Exception as error:  # whatever the code of somebody else raises
        raise InputError(f"model.body: {file} fails ({type(error).__name__}: {error}); correct it") from error
    if not hasattr(module, kind):
        raise InputError(f"model.body: there is no {kind} in {file}; name FILE.py:Class")
    try:
        register(name, getattr(module, kind))
    except ValueError as error:
        raise InputError(str(error)) from error
