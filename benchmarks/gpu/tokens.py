"""A token folder of made-up tokens: timing needs shapes and a vocabulary's frequencies, not text."""

from pathlib import Path

import numpy as np

from pipeline import files
from pipeline.config.data import DataConfig
from pipeline.data import Tokenizer
from pipeline.data import manifest as manifests
from pipeline.data.shards import ShardWriter
from pipeline.data.tokenise import Batch
from pipeline.data.tokenizer import END_OF_TEXT
from pipeline.data.tokenizer import FILE as TOKENIZER_FILE

TOKENS = {"train": 4_000_000, "val": 200_000}
DOCUMENT = 1000  # tokens a document
SEED = 20240802


def write(folder: Path, vocab_size: int, tokens: dict[str, int] | None = None) -> Path:
    """Shards, tokenizer and manifest in `folder`, as the data stage would leave them; kept where they are there.

    Token k of `vocab_size` comes about 1/(k + 1) times as often as the first: as words do in text.
    """
    if (folder / manifests.FILE).is_file():
        return folder
    frequencies = 1 / np.arange(1, vocab_size + 1)
    rising = np.cumsum(frequencies) / frequencies.sum()  # (V,)
    generator = np.random.Generator(np.random.Philox(key=SEED))
    entries = {END_OF_TEXT: 0} | {f"token{index}": index for index in range(1, vocab_size)}
    tokenizer = Tokenizer.from_bpe(entries, [])
    config = DataConfig(
        name="made_up",
        corpus="local",
        tokenizer="bpe",
        tokenizer_vocab_size=vocab_size,
        val_fraction=0.05,
    )
    with files.atomic_path(folder) as temporary:
        temporary.mkdir(parents=True)
        tokenizer.save(temporary / TOKENIZER_FILE)
        shards, counts = [], {}
        for split, wanted in (tokens or TOKENS).items():
            drawn = np.searchsorted(rising, generator.random(wanted)).clip(max=vocab_size - 1).astype(np.uint16)
            lengths = np.full(-(-wanted // DOCUMENT), DOCUMENT)
            lengths[-1] = wanted - lengths[:-1].sum()
            with ShardWriter(temporary, split, wanted, vocab_size) as writer:
                writer.write(Batch(drawn, lengths, lengths, 0))
            shards += writer.shards
            counts[split] = writer.counts
        body = manifests.build(config, shards, tokenizer, temporary / TOKENIZER_FILE, "made up", "uint16", counts)
        files.write_json(temporary / manifests.FILE, body)
    return folder
