"""What reading a corpus needs of this machine, found without reading it."""

import os
import shutil
import socket
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.config.data import DataConfig

OPENWEBTEXT = "Skylion007/openwebtext"
OPENWEBTEXT_DISK_BYTES = 18.1e9 + 54e9  # uint16 shards of 9,035,582,198 tokens, and the data set in the hub's cache


def faults(config: DataConfig, folder: Path) -> list[str]:
    """What is lacking to make the tokens in `folder`; nothing where they are made already."""
    if (folder / "manifest.json").exists():
        return []
    found = []
    if config.corpus in ("local", "nanogpt"):
        if not config.source:
            found.append(f"data.source is empty: name your files, as 'data.source=[my/{config.corpus}]'")
        found += [f"data.source={path}: not there" for path in config.source if not Path(path).exists()]
    if config.corpus == "openwebtext":
        source = config.source[0] if config.source else OPENWEBTEXT
        if not Path(source).exists() and not online():
            found.append(
                f"the data set {source} is not on this disk and the hub cannot be reached: go online, or copy the "
                "data set here and set 'data.source=[its/folder]'"
            )
        free = shutil.disk_usage(next(one for one in folder.absolute().parents if one.exists())).free
        if free < OPENWEBTEXT_DISK_BYTES:
            found.append(
                f"OpenWebText takes about {OPENWEBTEXT_DISK_BYTES / 1e9:.0f} GB on disk, {free / 1e9:.0f} GB are "
                "free: set paths.data to a larger disk"
            )
    return found


def online() -> bool:
    """One short attempt to reach the hub, unless HF_HUB_OFFLINE forbids it."""
    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        return False
    host = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co")).hostname or ""
    try:
        socket.create_connection((host, 443), timeout=2).close()
    except OSError:
        return False
    return True
