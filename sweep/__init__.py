"""isosweep: scaling-law sweeps of small Transformers, from a Hydra grid to IsoFLOP plots."""

import sys
from importlib.util import find_spec
from pathlib import Path

__version__ = "0.1.0"


def _refuse_other_models() -> None:
    """`models` is a common name: refuse a module that Python would import in place of the package beside this one. Raises
    ImportError if there is one. `isosweep` and `python -m sweep` print that on one line and exit with code 2."""
    spec = find_spec("models")
    found = Path(spec.origin) if spec is not None and spec.origin is not None else None
    if found is None or found.resolve() == Path(__file__).resolve().parents[1] / "models" / "__init__.py":
        return
    message = (
        f"{found} would be imported in place of isosweep's own package 'models'; start as isosweep, or as python -P -m sweep, "
        "and keep that folder out of PYTHONPATH"
    )
    if Path(sys.argv[0] if sys.argv else "").name in ("-m", "isosweep"):  # "-m": python imports a package before its __main__
        print(f"isosweep: {message}", file=sys.stderr)
        sys.exit(2)
    raise ImportError(message)


_refuse_other_models()
