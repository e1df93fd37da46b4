"""One command on a machine with a GPU: what only such a machine can show, part by part (docs/gpu.md)."""
