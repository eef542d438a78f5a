"""In which fields two configurations differ."""

import dataclasses
from typing import Any, NamedTuple

from cifar_jax.config.settings import SECTIONS, Config

# The same images are in another directory, have another name, or reach the device in another way.
SAME_EXPERIMENT = ("data.dataset", "data.data_dir", "data.folder_is_cifar10", "data.pipeline")


class Change(NamedTuple):
    """A field of two configurations: `section.name`, and its value in each."""

    field: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.field}: {self.before} -> {self.after}"


def changes(before: Config, after: Config, free: tuple[str, ...] = ()) -> list[Change]:
    """The fields that differ, in the order of the sections.

    Args:
        before, after: to compare; their names are not.
        free: fields, or whole sections, that may differ.
    """
    found = []
    for section, kind in SECTIONS.items():
        for name in (field.name for field in dataclasses.fields(kind)):
            left, right = (getattr(getattr(config, section), name) for config in (before, after))
            field = f"{section}.{name}"
            if left != right and not {section, field} & set(free):
                found.append(Change(field, left, right))
    return found
