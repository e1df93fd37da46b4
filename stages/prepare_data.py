"""Text to token shards: read the corpus, make or load the tokenizer, tokenise, split, write shards and manifest.

    python -m stages.prepare_data data=demo
    python -m stages.prepare_data data=local 'data.source=[my/folder]'

Killed, it goes on where it stopped. Finished data of the same configuration, source and code is left as it is.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.experiment.work import Work
    from pipeline.tracking import StageRun


def check(work: "list[Work]") -> list[str]:
    from pipeline.data.requirements import faults

    return [fault for one in work for fault in faults(one.config.data, one.path("data"), Path(one.config.paths.runs))]


def run(work: "Work", log: "StageRun") -> None:
    from pipeline.data.prepare import prepare

    config, folder = work.config, work.path("data")
    code = work.code_of("pipeline.data.prepare")
    manifest = prepare(
        config.data, folder, Path(config.paths.runs), work.fingerprint, config.cluster.data_workers, code
    )
    log.log_metrics(
        {
            "train_tokens": manifest["splits"]["train"]["tokens"],
            "val_tokens": manifest["splits"]["val"]["tokens"],
            "documents": manifest["documents"],
            "bytes_per_token": manifest["bytes_per_token"],
            "unigram_loss_nats": manifest["unigram_loss_nats"],
        }
    )
    log.log_artifact(work.result)
    print(f"{folder}: {manifest['corpus']}, {manifest['text_bytes'] / 1e6:.1f} MB of text")
    for name, split in manifest["splits"].items():
        print(f"  {name:5} {split['tokens']:>13,} tokens  {split['documents']:>9,} documents")
    tokenizer = manifest["tokenizer"]
    print(
        f"  tokenizer {tokenizer['name']}, {tokenizer['vocab_size']:,} entries, "
        f"{manifest['bytes_per_token']:.2f} bytes per token; unigram loss {manifest['unigram_loss_nats']:.3f} nats"
    )


if __name__ == "__main__":
    from stages.entry import launch

    raise SystemExit(launch(run, __doc__ or ""))
