"""Where a number comes from. Set where the number is born, and never rewritten."""

from typing import Literal

Kind = Literal["measured", "measured compute, modelled communication", "projected", "quoted", "counted"]
KINDS: dict[Kind, str] = {
    "measured": "measured here",
    "measured compute, modelled communication": "compute measured here, communication from a model of the link",
    "projected": "projected by a model of the hardware",
    "quoted": "quoted from the publication",
    "counted": "follows from shape or data alone",
}
