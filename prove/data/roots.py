"""Where a dataset and generated images lie on this machine: the flag, the environment, the config file."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs
import yaml

from prove.errors import ProveError


@dataclass(frozen=True)
class Root:
    """A folder and who named it, for messages."""

    path: Path
    source: str


def variable(dataset: str) -> str:
    """The environment variable that holds a dataset's root: IDD-AW → PROVE_IDD_AW_ROOT."""
    return f"PROVE_{re.sub(r'[^A-Z0-9]+', '_', dataset.upper())}_ROOT"


def config_file() -> Path:
    """The user's config file, ``~/.config/prove/config.yaml`` on Linux; `PROVE_CONFIG` names another."""
    return Path(os.environ.get("PROVE_CONFIG") or Path(platformdirs.user_config_dir("prove")) / "config.yaml")


def find_root(
    dataset: str, flag: str | Path | None = None, *, env: Mapping[str, str] = os.environ, shared: tuple[str, ...] = ()
) -> Root | None:
    """The folder a user named for a dataset: flag, then PROVE_<DATASET>_ROOT, PROVE_DATA_ROOT, the config file.

    Args:
        shared: folders that, if under PROVE_DATA_ROOT, show that it holds this dataset in the study's layout.

    Returns:
        None if nothing names one.

    Raises:
        ProveError: a named folder doesn't exist, or the config file is malformed.
    """
    if flag is not None:
        return _existing(Path(flag), "--data-root", dataset)
    if own := env.get(variable(dataset)):
        return _existing(Path(own), f"${variable(dataset)}", dataset)
    if common := env.get("PROVE_DATA_ROOT"):
        base = _existing(Path(common), "$PROVE_DATA_ROOT", dataset).path
        if (base / dataset).is_dir():
            return Root(base / dataset, "$PROVE_DATA_ROOT")
        if any((base / folder).is_dir() for folder in shared):
            return Root(base, "$PROVE_DATA_ROOT")
    if configured := _configured_roots().get(dataset):
        return _existing(Path(configured), f"data_roots in {config_file()}", dataset)
    return None


def missing_root(dataset: str, env: Mapping[str, str] = os.environ) -> ProveError:
    """The error when nothing says where a dataset lies; it names every way to say so."""
    looked = f" $PROVE_DATA_ROOT ({env['PROVE_DATA_ROOT']}) does not hold it." if env.get("PROVE_DATA_ROOT") else ""
    return ProveError(
        f"Where is {dataset}? No folder was named for it.{looked}",
        hint=(
            f"Name it by --data-root DIR, by the variable {variable(dataset)}=DIR (or PROVE_DATA_ROOT=DIR that holds "
            f"DIR/{dataset}), or in {config_file()}:\n  data_roots:\n    {dataset}: DIR"
        ),
    )


GENERATED_VARIABLE = "PROVE_GEN_ROOT"


def find_generated_root(flag: str | Path | None = None, *, env: Mapping[str, str] = os.environ) -> Root | None:
    """The folder that holds generated images: flag, then PROVE_GEN_ROOT, then `gen_root` in the config file.

    Returns:
        None if nothing names one.

    Raises:
        ProveError: the named folder doesn't exist, or the config file is malformed.
    """
    if flag is not None:
        return _existing(Path(flag), "--gen-root", "Generated images")
    if named := env.get(GENERATED_VARIABLE):
        return _existing(Path(named), f"${GENERATED_VARIABLE}", "Generated images")
    configured = _config().get("gen_root")
    if configured is None:
        return None
    if not isinstance(configured, str):
        raise ProveError(f"The config file {config_file()}: gen_root must be a folder, not {configured!r}.")
    return _existing(Path(configured), f"gen_root in {config_file()}", "Generated images")


def _existing(path: Path, source: str, dataset: str) -> Root:
    path = path.expanduser()
    if not path.is_dir():
        what = "is not a folder" if path.exists() else "does not exist"
        raise ProveError(f"{dataset}: {source} names {path}, which {what}.", hint="Correct the path or unset it.")
    return Root(path, source)


def _configured_roots() -> dict[str, str]:
    roots = _config().get("data_roots") or {}
    if not isinstance(roots, dict) or not all(isinstance(value, str) for value in roots.values()):
        raise _malformed()
    return {str(name): str(folder) for name, folder in roots.items()}


def _config() -> dict[str, Any]:
    path = config_file()
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        return {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ProveError(f"The config file {path} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise _malformed()
    return content


def _malformed() -> ProveError:
    return ProveError(
        f"The config file {config_file()} must map data_roots to names and folders.",
        hint="Write for example:\n  data_roots:\n    CamVid: /data/camvid",
    )
