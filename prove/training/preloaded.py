"""The worker's entry for a process that imports everything once and is then forked for each run.

Imported, it has brought up all that a worker needs and has not touched CUDA: each fork chooses its own device.
"""

from __future__ import annotations

import os
from pathlib import Path
from unittest.mock import patch

import prove
from prove.provenance import code_when_loaded
from prove.training.__main__ import main

__all__ = ["main"]

# Each fork runs what is loaded now, whatever becomes of the files.
code_when_loaded(Path(prove.__file__).parent)

# MMEngine asks for CUDA while it is imported, and a driver that was used before the fork can't be used after it. With
# no device in sight and NVML to be asked, torch answers without the driver; `see_devices` asks again in each fork.
with patch.dict(os.environ, PYTORCH_NVML_BASED_CUDA_CHECK="1", CUDA_VISIBLE_DEVICES=""):
    import prove.training.worker
