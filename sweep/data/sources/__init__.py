"""Sources of documents. Every module here that defines a `Reader` adds one, under the name that data.source calls it by."""

from collections.abc import Mapping
from importlib import import_module
from pkgutil import iter_modules
from typing import TypeVar

from sweep.config import SourceConfig
from sweep.data.sources.reader import SOURCES, Reader
from sweep.errors import InputError

T = TypeVar("T")

for module in iter_modules(__path__):
    import_module(f"{__name__}.{module.name}")


def reader_of(source: SourceConfig, field: str = "data") -> Reader:
    """The reader of `source`; `field` is the configuration field that messages name. Raises InputError if there is none."""
    return named(SOURCES, source.source, f"{field}.source")(source, field)


def named(registry: Mapping[str, T], name: str, field: str) -> T:
    """The entry of a registry. Raises InputError, which lists the entries, if there is none of that name."""
    if name not in registry:
        raise InputError(f"{field}={name} is none of {', '.join(registry)}")
    return registry[name]
