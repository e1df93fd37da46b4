"""Time To First Token projected for hardware that is not at hand: operator costs on a two-stream timeline."""
