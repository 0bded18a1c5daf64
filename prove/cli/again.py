"""What it takes to launch runs again that were called off before they had a folder."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from prove.cli.sweeping import Prepared
from prove.errors import ProveError
from prove.launch.folder import Assignment, LaunchDir


def of_launch_folders(results: Path, keys: Collection[str]) -> Prepared:
    """What the latest launch that was to do each of these runs had for it; those that none was to do are left out."""
    found: dict[str, Assignment] = {}
    files: dict[str, bytes] = {}
    wanted = set(keys)
    for path in sorted((Path(results) / "launches").glob("*"), reverse=True) if wanted else ():
        for each in _assignments(LaunchDir(path)):
            if each.key in wanted and each.key not in found:
                try:
                    files |= _files(LaunchDir(path), each)
                except OSError:
                    continue  # of this launch not all is left
                found[each.key] = each
        if len(found) == len(wanted):
            break
    return Prepared(tuple(found.values()), files)


def _assignments(folder: LaunchDir) -> list[Assignment]:
    tasks = sorted(int(task.stem) for task in (folder.path / "tasks").glob("*.json") if task.stem.isdigit())
    try:
        return [each for task in tasks for each in folder.assignments(task)]
    except (ProveError, TypeError, KeyError):
        return []  # written by another PROVE, or not to the end


def _files(folder: LaunchDir, assignment: Assignment) -> dict[str, bytes]:
    names = [f"{stem}{suffix}" for stem in dict(assignment.terms).values() for suffix in (".yaml", ".py")]
    names += [assignment.model_config] if assignment.model_config is not None else []
    return {name: (folder.files / name).read_bytes() for name in names}
