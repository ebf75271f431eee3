"""What `--help` says of fields: every one that a command reads, as it is typed, from the files of conf/ and their comments."""

import re
import shutil
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import yaml

from sweep.config import conf_directory

MAX_COLUMNS = 120
KEY = re.compile(r'( *)"?([\w-]+)"?:(?: +([^ #].*?))?(?: +# *(.*))?$')
COMMENT = "  "  # before one
NOT_TYPED = ("defaults", "source")  # data=text says it


def explain(fields: Sequence[str]) -> str:
    """The values that `fields` (fields of conf/sweep.yaml, and groups of conf/) have by default, and what they mean."""
    if not fields:
        return ""
    sweep = (conf_directory() / "sweep.yaml").read_text(encoding="utf-8")
    chosen = {
        name: file for group in yaml.safe_load(sweep)["defaults"] if isinstance(group, dict) for name, file in group.items()
    }
    lines = ["fields, and what they are by default"]
    for name in fields:
        if (folder := conf_directory() / name).is_dir():
            lines += ["", *_group(folder, chosen.get(name)), ""]
        if block := re.search(rf'^"?{name}"?:.*\n(?:[ #].*\n)*', sweep, re.MULTILINE):
            lines += _paragraphs(_fields(block.group().splitlines()))
    last = "key=value sets a field; group=file chooses a file of conf/, and group.key=value changes what is in it"
    return "\n".join([*lines, "", paragraph(last)]).replace("\n\n\n", "\n\n")


def paragraph(text: str, indent: int = 0) -> str:
    """`text` in lines that fit the terminal; those after the first are indented."""
    width = min(shutil.get_terminal_size().columns, MAX_COLUMNS)
    return textwrap.fill(text, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)


def _group(folder: Path, chosen: str | None) -> Iterator[str]:
    """The files of a group, and every field that one of them has, with the value that it has in the file taken by default, or
    else in the file that others build upon."""
    files = {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.yaml"))}
    yield paragraph(f"  {folder.name}={' | '.join(name for name in files if name != 'defaults')}", 6)
    if folder.name in ("experiment", "scale"):
        return  # they set fields of other groups
    order = sorted(files, key=lambda name: (name != "defaults", name != chosen, not _is_base(name, files)))
    known: dict[str, str] = {}
    for file in order:
        for names, comment in _fields(files[file].splitlines()):
            if names.partition("=")[0].partition(".")[0] not in NOT_TYPED:
                known.setdefault(names.partition("=")[0], f"{names}{COMMENT}{comment}")
    for name, line in known.items():
        if not any(other.startswith(f"{name}.") for other in known):  # null in one file, and a mapping in another
            names, _, comment = line.partition(COMMENT)
            yield from _paragraphs([(f"{folder.name}.{names}", comment)])


def _is_base(name: str, files: Mapping[str, str]) -> bool:
    """Whether another file of the group begins with this one's fields."""
    return any(f"defaults: [{name}]" in text for text in files.values())


def _fields(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The fields of a YAML file in conf/'s style, as they are typed, and their comments. Fields that share a line in braces
    stay together."""
    parents: list[tuple[int, str]] = []  # indent and name
    remarks: list[str] = []  # lines of comment before a field
    braces = False
    for line in lines:
        prefix = ".".join(name for _, name in parents)
        if braces or line.lstrip().startswith("{"):
            values, _, comment = line.partition(" # ")
            braces = "}" not in values
            yield " ".join(f"{prefix}.{key}={value}" for key, value in re.findall(r"(\w+): ([^,{}]+)", values)), comment
        elif line.lstrip().startswith("#"):
            remarks += [line.strip("# ")] * bool(parents)
        elif match := KEY.match(line):
            indent, key, value, comment = match.groups(default="")
            parents = [*(parent for parent in parents if parent[0] < len(indent)), (len(indent), key)]
            comment = comment or "; ".join(remarks)
            if value or comment:
                yield ".".join(name for _, name in parents) + f"={value}" * bool(value), comment
            remarks = []


def _paragraphs(fields: Iterable[tuple[str, str]]) -> list[str]:
    return [paragraph(f"  {names}" + f"{COMMENT}{comment}" * bool(comment), 6) for names, comment in fields]
