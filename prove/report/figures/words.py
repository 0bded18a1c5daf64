"""Short texts that figures and the page have in common. Needs no matplotlib."""

from __future__ import annotations

from prove.stats.effects import Effect


def why_no_verdict(effect: Effect) -> str:
    """Why the seeds of a block allow no verdict on a loss, such as ``one seed``; empty where they allow one."""
    if effect.seeds == 0:
        return "no pair of seeds"
    if effect.seeds == 1:
        return "one seed"
    return "seeds alike" if effect.basis in ("images", "nothing") else ""
