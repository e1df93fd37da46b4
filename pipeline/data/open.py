"""The corpus that a configuration names."""

from pipeline.config.data import DataConfig
from pipeline.data.corpus import Corpus
from pipeline.data.demo import DemoCorpus
from pipeline.data.local import LocalCorpus
from pipeline.data.openwebtext import OpenWebText


def open_corpus(config: DataConfig, workers: int = 1) -> Corpus:
    """The corpus that data.corpus names; raises DataError where it cannot be found or read."""
    if config.corpus == "demo":
        return DemoCorpus(config, workers)
    if config.corpus == "local":
        return LocalCorpus(config)
    if config.corpus == "openwebtext":
        return OpenWebText(config)
    raise ValueError(f"{config.corpus} holds tokens, not text")
