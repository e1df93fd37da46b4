"""Documents to token batches on disk: over processes, in bounded memory, going on after a kill.

A batch is about 2 MiB of text. Its file appears whole under its number when it is done, so the
files that exist say what need not be done again.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
from tqdm import tqdm

from pipeline.data.corpus import Corpus
from pipeline.data.tokenizer import Tokenizer
from pipeline.errors import RunError
from pipeline.files import atomic_path

BATCH_BYTES = 2 << 20
IN_FLIGHT = 3  # batches per worker that wait or run: memory is workers × this × a few BATCH_BYTES


class Batch(NamedTuple):
    """Consecutive documents, tokenised; each ends with the end-of-text token."""

    tokens: np.ndarray  # (tokens,) uint16 or uint32
    lengths: np.ndarray  # (documents,) int64, tokens of each document
    text_bytes: np.ndarray  # (documents,) int64, UTF-8 bytes of each document
    read_bytes: int  # share of the source's bytes, for progress

    def save(self, path: Path) -> None:
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(
                file,
                tokens=self.tokens,
                lengths=self.lengths,
                text_bytes=self.text_bytes,
                read_bytes=np.int64(self.read_bytes),
            )

    @classmethod
    def load(cls, path: Path) -> "Batch":
        with np.load(path) as arrays:
            return cls(arrays["tokens"], arrays["lengths"], arrays["text_bytes"], int(arrays["read_bytes"]))


def token_dtype(vocab_size: int) -> np.dtype[np.unsignedinteger]:
    """uint16 as nanoGPT where it suffices, else uint32."""
    return np.dtype(np.uint16) if vocab_size <= 2**16 else np.dtype(np.uint32)


def batch_path(folder: Path, index: int) -> Path:
    return folder / f"batch-{index:06d}.npz"


def tokenise(corpus: Corpus, tokenizer_path: Path, folder: Path, workers: int) -> int:
    """Write every batch of `corpus` to `folder` that is not there yet; returns the number of batches.

    Raises DataError from the corpus, RunError where a worker process died.
    """
    first, documents, done_bytes = _finished(folder)
    batches = first
    with (
        tqdm(
            total=corpus.total_bytes, initial=done_bytes, unit="B", unit_scale=True, desc="tokenise", mininterval=1.0
        ) as progress,
        _pool(workers, tokenizer_path) as pool,
    ):
        running: set[Future[int]] = set()
        try:
            for texts, read_bytes in _batches(corpus, documents):
                path = batch_path(folder, batches)
                batches += 1
                if path.exists():  # finished before a kill, out of turn
                    progress.update(read_bytes)
                    continue
                running.add(pool.submit(_work, texts, read_bytes, path))
                while len(running) >= IN_FLIGHT * workers:
                    running = _collect(running, progress)
            while running:
                running = _collect(running, progress)
        except BaseException as error:
            pool.shutdown(wait=True, cancel_futures=True)
            if isinstance(error, BrokenProcessPool):  # killed, most often for memory
                raise RunError(
                    f"a tokenising process died ({error}); run again to go on, with fewer cluster.data_workers "
                    "if memory is short"
                ) from error
            raise
    return batches


def _finished(folder: Path) -> tuple[int, int, int]:
    """Batches finished without a gap, and the documents and source bytes in them."""
    index = documents = read_bytes = 0
    while batch_path(folder, index).exists():
        with np.load(batch_path(folder, index)) as arrays:
            documents += len(arrays["lengths"])
            read_bytes += int(arrays["read_bytes"])
        index += 1
    return index, documents, read_bytes


def _batches(corpus: Corpus, start: int) -> Iterator[tuple[list[str], int]]:
    """Consecutive documents grouped to BATCH_BYTES of text; the cuts depend on the text alone."""
    texts: list[str] = []
    size = read_bytes = 0
    for document in corpus.documents(start):
        texts.append(document.text)
        size += len(document.text)
        read_bytes += document.read_bytes
        if size >= BATCH_BYTES:
            yield texts, read_bytes
            texts, size, read_bytes = [], 0, 0
    if texts:
        yield texts, read_bytes


def _collect(running: set[Future[int]], progress: "tqdm[NoReturn]") -> set[Future[int]]:
    done, left = wait(running, return_when=FIRST_COMPLETED)
    for future in done:
        progress.update(future.result())
    return left


def _pool(workers: int, tokenizer_path: Path) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_start, initargs=(tokenizer_path,)
    )


_tokenizer: Tokenizer  # one per worker process


def _start(tokenizer_path: Path) -> None:
    """A worker's start: leave Ctrl-C to the parent, and end with it."""
    global _tokenizer
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    _tokenizer = Tokenizer.load(tokenizer_path)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(texts: list[str], read_bytes: int, path: Path) -> int:
    encode(_tokenizer, texts, read_bytes).save(path)
    return read_bytes


def encode(tokenizer: Tokenizer, texts: list[str], read_bytes: int) -> Batch:
    """Tokens of each text with end of text after it, one after another."""
    rows = tokenizer.encode_batch(texts)
    lengths = np.array([len(row) + 1 for row in rows], dtype=np.int64)
    tokens = np.empty(int(lengths.sum()), dtype=token_dtype(tokenizer.vocab_size))
    end = 0
    for row in rows:
        tokens[end : end + len(row)] = row
        tokens[end + len(row)] = tokenizer.eot_token
        end += len(row) + 1
    sizes = np.array([len(text.encode()) for text in texts], dtype=np.int64)
    return Batch(tokens, lengths, sizes, read_bytes)
