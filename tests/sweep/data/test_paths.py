"""Paths as people have them: taken literally where the file exists, and without quotes for Hydra."""

from pathlib import Path

import pytest

from sweep.cli import main
from sweep.config import SourceConfig, compose
from sweep.data.sources import reader_of
from sweep.data.sources.reader import FileReader
from sweep.errors import InputError

NAMES = ["[v1] a.txt", "runs (1).txt", "gr\u00f6\u00dfe.txt", "a=b.txt", "{x}.txt", "it's.txt"]
NAMES += ["~", "50% off!.txt", "a*.txt", "what?.txt", "#1.txt", "a: b.txt"]


def files_of(*paths: str, source: str = "text", **fields: list[str]) -> list[str]:
    reader = reader_of(SourceConfig(source=source, paths=list(paths), suffixes=fields.get("suffixes")))
    assert isinstance(reader, FileReader)
    return [path.name for path in reader.files]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", ["[{}]", "{}", "[{},other.txt]"])
def test_a_name_is_taken_as_it_is_typed(
    tmp_path: Path, name: str, form: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for each in (name, "ab.txt", "other.txt"):
        Path(each).write_text(f"{each} " * 2000)
    typed = ["data=text", f"data.paths={form.format(name)}"]
    paths = compose(typed).data.paths
    assert paths == ([name, "other.txt"] if "other" in form else [name])
    assert set(files_of(*paths)) == set(paths)
    sweep = ["grid=list", "grid.runs=[{N: 2e4, D: 2e4}]", "data.validation_tokens=2048", "data.max_epochs=20", "device=cpu"]
    assert main(["plan", *typed, *sweep, f"store={tmp_path / 'store'}"]) == 0
    assert capsys.readouterr().err == ""


def test_folders_globs_and_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / "data [v1] (new)"
    folder.mkdir()
    for name in ("a.txt", "b.txt", "c.md"):
        (folder / name).write_text(name)
    assert files_of(f"{folder}/*.txt") == ["a.txt", "b.txt"]
    assert files_of("~/data [v1] (new)/a.txt", "~/data*/c.md") == ["a.txt", "c.md"]
    assert files_of(str(folder)) == ["a.txt", "b.txt", "c.md"]
    for wrong in (f"{folder}/d.txt", f"{tmp_path}/data [v2]", "~nobody/a.txt", "~/none/*.txt"):
        with pytest.raises(InputError, match=r"data\.paths: .* matches no file; check the path"):
            files_of(wrong)
    with pytest.raises(InputError, match="has an empty entry"):
        files_of("")


def test_values_of_lists_mean_what_they_say() -> None:
    def paths(typed: str) -> list[str]:
        return compose(["data=text", f"data.paths={typed}"]).data.paths

    assert paths("[1e3,010,true]") == ["1e3", "010", "true"]
    assert paths("a,b.txt") == paths("['a,b.txt']") == paths('["a,b.txt"]') == ["a,b.txt"]
    assert paths(r"[a\b.txt,c\]") == ["a\\b.txt", "c\\"]
    assert paths("[${oc.env:NOT_THERE,home}/a (1).txt, b]") == ["home/a (1).txt", "b"]
    assert paths("[]") == []


def test_suffixes_choose_the_files_of_a_folder(tmp_path: Path) -> None:
    for name in ("a.txt", "B.TXT", "c.md", "d.py", "e.log", "f.csv", "g.jsonl", "h.tar.gz"):
        (tmp_path / name).write_text("{}")
    assert files_of(str(tmp_path)) == ["B.TXT", "a.txt", "c.md", "d.py"]
    assert files_of(str(tmp_path), suffixes=[".txt"]) == ["B.TXT", "a.txt"]
    assert files_of(str(tmp_path), suffixes=[".log", ".csv"]) == ["e.log", "f.csv"]
    assert files_of(str(tmp_path / "e.log")) == ["e.log"]
    assert files_of(str(tmp_path), source="jsonl") == ["g.jsonl"]
    with pytest.raises(InputError, match=r"no file that ends in \.jl; its files end in .*: name them: 'data\.suffixes="):
        files_of(str(tmp_path), suffixes=[".jl"])
    for wrong in ("[]", "[txt]", "[*.txt]"):
        with pytest.raises(InputError, match=r"data\.suffixes=.*write them as \[\.txt,\.md\]"):
            compose(["data=text", f"data.suffixes={wrong}"])
