"""The fields of conf/ that a command reads, as conf/sweep.yaml explains them, for the command's help."""

import re
from collections.abc import Sequence

from sweep.config import conf_directory


def explain_fields(fields: Sequence[str]) -> str:
    """The lines of conf/sweep.yaml on each field, and the files of each group."""
    if not fields:
        return ""
    text = (conf_directory() / "sweep.yaml").read_text()
    lines = [f"  {line}" for field in fields for line in _explained(field, text)]
    return "\n".join(["fields", *lines, "", "key=value overrides a field, group=file chooses a file of conf/"])


def _explained(field: str, text: str) -> list[str]:
    """The lines of conf/sweep.yaml on a field, or the files that a group has."""
    folder = conf_directory() / field
    if folder.is_dir():
        return [f"{field}={'|'.join(sorted(path.stem for path in folder.glob('*.yaml') if path.stem != 'defaults'))}"]
    block = re.search(rf'^"?{field}"?:.*\n(?:[ #].*\n)*', text, re.MULTILINE)
    return block.group().rstrip().splitlines() if block else []
