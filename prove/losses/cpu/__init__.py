"""The fused objective on a CPU: compiled by numba on first use, so that nobody needs a compiler."""
