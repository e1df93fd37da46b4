"""What reading a corpus needs of this machine, found without reading it."""

from pathlib import Path

from pipeline.config.data import DataConfig
from pipeline.data import nanogpt, space
from pipeline.data.open import open_corpus
from pipeline.data.openwebtext import OpenWebText
from pipeline.errors import DataError

PROBE_S = 3.0
PROXY_REFUSES = 407


def faults(config: DataConfig, folder: Path, runs: Path) -> list[str]:
    """What is lacking to make the tokens in `folder`; nothing where they are made already."""
    if (folder / "manifest.json").exists():
        return []
    try:
        if config.corpus == "nanogpt":
            nanogpt.source_files(config)
            return []
        corpus = open_corpus(config)
        found = space.faults(config, corpus, folder, runs / "prepare_data")
    except DataError as error:
        return [str(error)]
    if isinstance(corpus, OpenWebText) and not corpus.is_here() and not online():
        found.append(
            f"the data set {config.source[0]} is not on this disk and the hub cannot be reached: go online, or copy "
            "the data set here and set 'data.source=[its/folder]'"
        )
    return found


def online() -> bool:
    """One short attempt to reach the hub as its own client does: through proxies, and never where HF_HUB_OFFLINE is."""
    from huggingface_hub import constants, get_session

    try:
        status = get_session().head(constants.ENDPOINT, timeout=PROBE_S).status_code
    except Exception:  # no route, no name, a proxy that refuses, or offline by setting: by many names
        return False
    return bool(status < 500 and status != PROXY_REFUSES)
