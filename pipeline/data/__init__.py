"""Text to tokens: corpora, tokenizer, shards with their manifest, and a sampler that needs no state."""

from pipeline.data.sampler import TokenSampler
from pipeline.data.token_data import TokenData, TokenSplit
from pipeline.data.tokenizer import Tokenizer, load_tokenizer

__all__ = ["TokenData", "TokenSampler", "TokenSplit", "Tokenizer", "load_tokenizer"]
