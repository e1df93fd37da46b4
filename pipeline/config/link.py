"""The links that ranks meet over."""

import re
from typing import Annotated

from pydantic import Field, field_validator

from pipeline.config.group import Group, Name, Once

LOOPBACK = "loopback"
RATE = re.compile(r"^(\d+(?:\.\d+)?)(kbit|mbit|gbit)$")
UNITS = {"kbit": 1e3, "mbit": 1e6, "gbit": 1e9}


def bits_per_second(link: str) -> float | None:
    """The rate of a link such as 300mbit; None for loopback, whose rate nothing limits."""
    match = RATE.match(link)
    return float(match[1]) * UNITS[match[2]] if match else None


class LinkConfig(Group):
    """Ranks on this machine joined by links of known speed."""

    name: Name = Field(description="name of the config file")
    links: Annotated[list[str], Once] = Field(
        description="loopback, or rates such as 300mbit (network namespaces; Linux, root)", min_length=1
    )

    @field_validator("links")
    @classmethod
    def check_links(cls, links: list[str]) -> list[str]:
        wrong = [link for link in links if link != LOOPBACK and not bits_per_second(link)]
        if wrong:
            raise ValueError(f"={wrong}: must be loopback or a rate such as 300mbit or 1gbit")
        return links
