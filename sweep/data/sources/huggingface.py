"""Hugging Face datasets."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from sweep.data.sources.paths import expand, file_identity
from sweep.data.sources.reader import MAX_UNITS, Records
from sweep.errors import InputError, explained


class HuggingFace(Records, name="huggingface"):
    """A dataset by name, or a local folder: one that `save_to_disk` wrote, or files that `load_dataset` understands."""

    @cached_property
    def _folder(self) -> Path | None:
        """The local folder; None for a dataset by name. Raises InputError if neither is named."""
        dataset = self.source.dataset
        if not dataset:
            raise InputError(f"{self.field}.dataset is empty; name a Hugging Face dataset or a local folder")
        folder = Path(dataset).expanduser()
        if dataset.startswith((".", "/", "~")) and not folder.is_dir():
            raise InputError(f"{self.field}.dataset={dataset} is no folder; check the path (it is relative to {Path.cwd()})")
        return folder if folder.is_dir() else None

    def identity(self) -> Any:
        """The files of a local folder; the name and revision of any other dataset, which only a commit hash pins for good."""
        source = self.source
        what: dict[str, Any] = {"config": source.config, "split": source.split, "column": source.column, "rows": source.rows}
        if self._folder is None:
            return what | {"dataset": source.dataset, "revision": source.revision}
        return what | {"files": [file_identity(path) for path in expand([str(self._folder)], ("",), self.field)]}

    def most_tokens(self) -> float:
        return float("inf")

    def check(self) -> None:
        """Only a local folder is looked into: planning works offline."""
        if self._folder is not None:
            self.look_into()

    @cached_property
    def _stream(self) -> Any:
        """A `datasets.IterableDataset`."""
        import datasets

        source, folder = self.source, self._folder
        problem = f"{self.field}.dataset={source.dataset} cannot be loaded"
        remedy = (
            "check dataset, config, split (a slice such as train[:50] only of a saved dataset; data.max_bytes takes the first "
        )
        remedy += "documents of any) and revision, and the network, or give a local folder"
        with explained(problem, remedy):  # each builder raises errors of its own
            if folder and ((folder / "state.json").exists() or (folder / "dataset_dict.json").exists()):
                saved = self._split_of(datasets.load_from_disk(str(folder)))
                stream = saved.to_iterable_dataset(num_shards=max(1, min(MAX_UNITS, len(saved) // 1024)))
            else:
                name, options = str(folder or source.dataset), {"split": source.split, "revision": source.revision}
                stream = datasets.load_dataset(name, source.config, streaming=True, **options)
            top = source.column if source.column in (stream.column_names or ()) else source.column.partition(".")[0]
            if stream.column_names is not None and top not in stream.column_names:
                raise InputError(self.missing_column(stream.column_names, str(source.dataset)))
        return stream.select_columns([top]) if stream.column_names is not None else stream

    def _split_of(self, saved: Any) -> Any:
        """The split, or the slice of one as in train[:50], of a dataset that `save_to_disk` wrote. Raises InputError if it has
        no such split; a single dataset is the one that it was, or train if it does not say."""
        import datasets

        if isinstance(saved, datasets.DatasetDict):
            parts = dict(saved)
        else:
            parts = {str(saved.split or "train").partition("[")[0]: saved}
        split = self.source.split
        if split in parts:
            return parts[split]
        problem = f"{self.field}.split={split}: {self.source.dataset} has no such split, but {', '.join(parts)}"
        with explained(problem, "name one of them, or a slice of one, as in train[:50] or train[:10%]"):
            read = datasets.ReadInstruction.from_spec(split)
            slices = read.to_absolute({name: len(part) for name, part in parts.items()})
            chosen = [parts[each.splitname].select(range(each.from_ or 0, each.to)) for each in slices]
        whole = datasets.concatenate_datasets(chosen)
        if not len(whole):
            raise InputError(f"{self.field}.split={split} holds no rows of {self.source.dataset}; choose more")
        return whole

    def units(self) -> list[Any]:
        return list(range(min(self._stream.num_shards, MAX_UNITS)))

    def texts(self, unit: int) -> Iterator[bytes | None]:
        part = self._stream.shard(num_shards=min(self._stream.num_shards, MAX_UNITS), index=unit)
        where = f"{self.source.dataset}, {self.source.split}"
        problem = f"{self.field}.dataset={self.source.dataset}: reading stopped"
        with explained(problem, "run the same command again to continue from there"):  # network, files, or the builder
            for number, row in enumerate(part):
                yield self.text_of(row, f"{where}, row {number:,} of part {unit}")
