"""Intervals, multiplicity, power: from numbers to what may be claimed of them. numpy and scipy, no PROVE."""
