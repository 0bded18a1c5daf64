"""A worker whose import takes longer than any test waits."""

import time

time.sleep(600)


def main(arguments: list[str]) -> int:
    return 0
