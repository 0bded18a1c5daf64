"""What time it is where files are written: the clocks of two machines, and of a file server, may differ."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def file_system_time(folder: Path) -> float:
    """The time that a file gets which is written into a folder now, seconds since 1970.

    Raises:
        OSError: it can't be known: nothing can be written there.
    """
    with tempfile.NamedTemporaryFile(dir=folder) as probe:
        return os.stat(probe.name).st_mtime
