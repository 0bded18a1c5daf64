"""Whether pretrained weights really arrived: MMEngine loads what fits and only mutters about the rest."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prove.errors import ProveError

LEAST = 0.5
"""Share of a file's numbers that must be found in the model. A classification head is not (8% of a ResNet-50, 20% of
a Swin-B on ImageNet-22k), nor are tables that are resampled; a file for another backbone brings next to nothing.
It is also the share of the backbone's parameters that the file must hold: a small file can be part of a big model."""


def check_arrived(model: nn.Module, weights: Path) -> None:
    """Look for the file's tensors in the model and for the backbone's parameters in the file.

    Both by value: names may have been converted on the way.

    Raises:
        ProveError: less than `LEAST` of either is there, so that the run would train from (mostly) random weights; the
            file is the checkpoint of a whole model; it can't be read.
    """
    loaded = read_weights(weights)
    held = list(tensors(loaded))
    arrived = share_found(held, model.state_dict().values())
    backbone = getattr(model, "backbone", None)
    filled = share_found(backbone.parameters(), held) if isinstance(backbone, nn.Module) else 1.0
    if min(arrived, filled) < LEAST:
        require_backbone(loaded, weights)
        raise ProveError(
            f"Only {100 * arrived:.0f}% of the pretrained weights in {weights} arrived in the model: "
            "they are for another backbone."
            if arrived < LEAST
            else f"The pretrained weights in {weights} arrived in the model, but they fill only {100 * filled:.0f}% of "
            "its backbone: they are for a smaller one.",
            hint="Use the file that the model's config names, or --no-pretrained (for all arms alike).",
        )


def read_weights(file: Path) -> Mapping[str, Any]:
    """The content of a weights file; what is pickled in it is not executed.

    Args:
        file: ``.safetensors``, or anything that `torch.load` reads.

    Raises:
        ProveError: it can't be read.
    """
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken file fails in many ways; each means the same to a user
        if refused := re.search(r"Unsupported (?:global: GLOBAL|class) (\S+)", str(error)):
            raise ProveError(
                f"The pretrained weights in {file} can't be read: beside tensors it holds a pickled {refused[1]}, and "
                "PROVE executes nothing that is pickled in a file.",
                hint="Save the tensors of its backbone alone: torch.save of a dict of them by name.",
            ) from error
        kind = "a .safetensors file" if file.suffix == ".safetensors" else "a file that torch.save wrote"
        raise ProveError(
            f"The pretrained weights in {file} can't be read: it is not {kind}, or it is damaged "
            f"({type(error).__name__}).",
            hint="Remove the file if it is in PROVE's cache, so that it is fetched anew; or give another.",
        ) from error
    if not isinstance(loaded, Mapping):
        raise ProveError(f"The file {file} holds a {type(loaded).__name__}, not weights by name.")
    return loaded


def require_backbone(loaded: Mapping[str, Any], file: Path) -> None:
    """Refuse the checkpoint of a whole model, such as a run's; asked when a file does not fit, to say why.

    Not asked of others: some backbones of MMSegmentation take their part from such a file by themselves.

    Args:
        loaded: the file's content: tensors by name, or those under ``state_dict`` or ``model``.

    Raises:
        ProveError: there are tensors that are called ``backbone.…``.
    """
    nested = next((loaded[name] for name in ("state_dict", "model") if isinstance(loaded.get(name), Mapping)), loaded)
    if any(str(name).startswith("backbone.") for name in nested):
        raise ProveError(
            f'{file} is the checkpoint of a whole model, not of a backbone: its tensors are called "backbone.…".',
            hint="Take the file that the model's config names, or save the tensors of its backbone alone, under the "
            "names that such a file has (without 'backbone.').",
        )


def share_found(wanted: Iterable[Tensor], among: Iterable[Tensor]) -> float:
    """Share of the numbers in ``wanted``, in [0, 1], whose tensors are also ``among`` others; scalars don't count."""
    present = {_digest(value) for value in among if value.numel() > 1}
    total = found = 0
    for value in wanted:
        if value.numel() > 1:
            total += value.numel()
            found += value.numel() * (_digest(value) in present)
    return found / total if total else 0.0


def tensors(state: Any) -> Iterator[Tensor]:
    """All tensors of a checkpoint, however it is nested."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, Mapping):
        for value in state.values():
            yield from tensors(value)


def _digest(value: Tensor) -> bytes:
    flat = value.detach().to("cpu", torch.float32).contiguous().flatten()
    return hashlib.blake2b(flat.numpy().tobytes(), digest_size=16).digest()
