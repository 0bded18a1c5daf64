"""One training job, with the flags of the original study: a few lines over `prove run`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from prove.cli.config import show
from prove.cli.lazy import report
from prove.cli.request import RunRequest
from prove.cli.run import carry_out
from prove.errors import ProveError
from prove.spec.dataset_text import JOINT


def main() -> int:
    """Train the job; returns 0 finished, 1 failed, 2 the request was wrong, 130 interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    data = parser.add_mutually_exclusive_group(required=True)
    data.add_argument("--dataset")
    data.add_argument("--datasets", nargs="+", metavar="NAME", help="several, trained on together")
    parser.add_argument("--model", required=True)
    parser.add_argument("--strategy", default="baseline")
    parser.add_argument("--aux-loss", help="none, focal, lovasz, boundary, dice; weight 0.3 in every head")
    parser.add_argument("--domain-filter", help="train on images of these conditions alone")
    parser.add_argument("--real-gen-ratio", type=float, help="share of real images with gen_NAME")
    parser.add_argument("--data-root")
    parser.add_argument("--gen-root")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-iters", type=int)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--eval-interval", type=int)
    parser.add_argument("--lr", type=float)
    parser.add_argument("--no-early-stop", dest="early_stop", action="store_false")
    parser.add_argument("--early-stop-patience", dest="patience", type=int)
    parser.add_argument("--no-pretrained", dest="pretrained", action="store_false")
    parser.add_argument("--work-dir", type=Path, default=Path("results"), help="results folder")
    parser.add_argument("--config-only", action="store_true", help="print the MMSegmentation config and train nothing")
    flags = vars(parser.parse_args())
    results, config_only = flags.pop("work_dir"), flags.pop("config_only")
    if several := flags.pop("datasets"):
        flags["dataset"] = f"{JOINT}{'+'.join(several)}" if len(several) > 1 else several[0]
    try:
        request = RunRequest(**flags)
        if config_only:
            show(request)
            return 0
        return carry_out(request, results)
    except ProveError as error:
        report(error)
        return 2


if __name__ == "__main__":
    sys.exit(main())
