"""TTFT of engines that were built beforehand."""
