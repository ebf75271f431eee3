"""A run's identity."""

from dataclasses import dataclass, field

from sweep.plan.run import RunConfig


@dataclass(frozen=True, kw_only=True)
class Extended(RunConfig):
    """A run of a later version, with one more field."""

    dropout: float = field(default=0.0, metadata={"later": True})


def test_a_field_that_is_added_later_renames_no_run(tiny_run: RunConfig) -> None:
    values = {name: getattr(tiny_run, name) for name in RunConfig.__dataclass_fields__}
    assert Extended(**values).run_id == tiny_run.run_id
    assert Extended(**values, dropout=0.1).run_id != tiny_run.run_id
    assert Extended(**values | {"seed": 5}).run_id != tiny_run.run_id
