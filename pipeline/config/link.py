"""The links that ranks meet over."""

import re
from typing import Annotated

from pydantic import Field, field_validator

from pipeline.config.group import Group, Name, Once

LOOPBACK = "loopback"
LINK = re.compile(r"^(?:loopback|(\d+(?:\.\d+)?)(kbit|mbit|gbit))(?:\+(\d+(?:\.\d+)?)(us|ms))?$")
UNITS = {"kbit": 1e3, "mbit": 1e6, "gbit": 1e9, "us": 1e-6, "ms": 1e-3}


def bits_per_second(link: str) -> float | None:
    """The rate of a link such as 300mbit or 300mbit+2ms; None for loopback, whose rate nothing limits."""
    match = LINK.match(link)
    return float(match[1]) * UNITS[match[2]] if match and match[1] else None


def delay_seconds(link: str) -> float:
    """What a link such as 1gbit+2ms takes longer in each direction; 0 where it names no delay."""
    match = LINK.match(link)
    return float(match[3]) * UNITS[match[4]] if match and match[3] else 0.0


def is_link(name: str) -> bool:
    """Whether this names a link: loopback or a rate above 0, and on request a delay above 0."""
    match = LINK.match(name)
    return match is not None and bits_per_second(name) != 0 and (not match[3] or delay_seconds(name) > 0)


class LinkConfig(Group):
    """Ranks on this machine joined by links of known speed."""

    name: Name = Field(description="name of the config file")
    links: Annotated[list[str], Once] = Field(
        description="loopback, or rates such as 300mbit (network namespaces; Linux, root); with a delay as 1gbit+2ms, "
        "by the kernel where it offers that, else by a model",
        min_length=1,
    )

    @field_validator("links")
    @classmethod
    def check_links(cls, links: list[str]) -> list[str]:
        wrong = [link for link in links if not is_link(link)]
        if wrong:
            raise ValueError(f"={wrong}: must be loopback or a rate such as 300mbit or 1gbit, or these with +2ms")
        return links
