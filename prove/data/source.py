"""From a dataset's definition to its samples on this machine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from prove.catalog.datasets import Layout
from prove.catalog.registry import Registry
from prove.data.definition import DatasetDefinition, resolve_dataset
from prove.data.manifest import Manifest, Split
from prove.data.roots import Root, find_root, missing_root
from prove.data.scan import matches, scan
from prove.errors import ProveError

__all__ = ["Dataset", "open_dataset", "resolve_dataset"]


@dataclass(frozen=True)
class Dataset:
    """A dataset found on this machine.

    Args:
        root: the folder that was named for it, plus the layout's prefix.
        layout: which of the definition's layouts it has.
        draws: how many samples an epoch takes from each pool of the training samples, as (pool, count); empty where an
            epoch is every sample once.
    """

    definition: DatasetDefinition
    root: Path
    layout: Layout
    train: Manifest
    val: Manifest
    draws: tuple[tuple[str, int], ...] = ()

    @property
    def splits(self) -> tuple[Manifest, Manifest]:
        """Training and validation."""
        return self.train, self.val


def open_dataset(definition: DatasetDefinition, *, root: str | Path | None = None, layout: str = "auto") -> Dataset:
    """Find a dataset and list its splits. Files are not opened; `prove.data.check.check` does that.

    The folder comes from `root`, else PROVE_<DATASET>_ROOT, PROVE_DATA_ROOT, the user's config file, else (own YAML)
    its `root` and (SynthStreet) the user's cache, where it is drawn first if need be.

    Args:
        layout: a layout's name, or "auto" to take the one that is there.

    Of a joint dataset each member is found so; `root` names their folders as `prove.data.joint.roots_of` takes them.

    Raises:
        ProveError: no folder is named, it doesn't exist, or none or several layouts fit it.
    """
    if definition.members:
        from prove.data.joint import open_joint

        if layout != "auto":
            raise ProveError(f"{definition.name} has no layout of its own, but was asked for {layout!r}.")
        return open_joint(definition, root)
    found = _root(definition, root)
    folder, chosen = _layout(definition, found, layout)
    train, val = (
        scan(folder, chosen, split, dataset=definition.name, label_space=definition.label_space) for split in _SPLITS
    )
    return Dataset(definition, folder, chosen, train, val)


_SPLITS: tuple[Split, Split] = ("train", "val")


def _root(definition: DatasetDefinition, flag: str | Path | None) -> Root:
    if definition.size is not None:
        from prove.data.synthstreet import ensure  # draws with OpenCV, which nobody else needs

        named = find_root("SynthStreet", flag, env=_own_variable_only())
        return Root(ensure(definition.size, named.path if named else None), named.source if named else "the cache")
    name = definition.home or definition.name
    shared = tuple(entry.train.images for entry in definition.layouts if entry.name == "stratified")
    named = find_root(name, flag, shared=shared)
    if named is None and definition.root is not None:
        if not definition.root.is_dir():
            raise ProveError(f"{definition.file}: root is {definition.root}, which does not exist.")
        return Root(definition.root, f"root in {definition.file}")
    if named is None:
        raise missing_root(name)
    return named


def _own_variable_only() -> dict[str, str]:
    """SynthStreet is not expected among downloaded data, so PROVE_DATA_ROOT doesn't apply to it."""
    return {key: value for key, value in os.environ.items() if key != "PROVE_DATA_ROOT"}


def _layout(definition: DatasetDefinition, root: Root, name: str) -> tuple[Path, Layout]:
    layouts = definition.layouts
    if name != "auto":
        layouts = (Registry("layout", definition.layouts).get(name, where=f"of {definition.name}"),)
    candidates = [(root.path / prefix, layout) for layout in layouts for prefix in layout.prefixes]
    fitting = [(folder, layout) for folder, layout in candidates if matches(folder, layout)]
    if not fitting:
        wanted = "\n".join(
            f"  {layout.name}: {folder / layout.train.images} and {folder / layout.train.labels}"
            for folder, layout in candidates
        )
        raise ProveError(
            f"{definition.name}: {root.path} (from {root.source}) has none of its layouts. Looked for\n{wanted}",
            hint="Name the folder that holds these.",
        )
    if len(fitting) > 1:
        names = " and ".join(f"{layout.name} ({folder})" for folder, layout in fitting)
        raise ProveError(
            f"{definition.name}: {root.path} (from {root.source}) fits several layouts: {names}.",
            hint="Name the folder of one of them.",
        )
    return fitting[0]
