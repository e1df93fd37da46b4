"""Text to token shards: read the corpus, make or load the tokenizer, tokenise, split, write shards and manifest.

    python -m stages.prepare_data data=demo
    python -m stages.prepare_data data=local 'data.source=[my/folder]'

Killed, it goes on where it stopped. Finished data of the same configuration and source is left as it is.
"""

from pathlib import Path

from pipeline.config import Config
from pipeline.experiment.stages import BY_NAME
from pipeline.tracking import StageRun
from stages.entry import launch


def run(config: Config, log: StageRun) -> None:
    from pipeline.data.prepare import prepare

    stage = BY_NAME["prepare_data"]
    result = stage.result(config)
    manifest = prepare(
        config.data, result.parent, Path(config.paths.runs), stage.fingerprint(config), config.cluster.data_workers
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
    log.log_artifact(result)
    print(f"{result.parent}: {manifest['corpus']}, {manifest['text_bytes'] / 1e6:.1f} MB of text")
    for name, split in manifest["splits"].items():
        print(f"  {name:5} {split['tokens']:>13,} tokens  {split['documents']:>9,} documents")
    tokenizer = manifest["tokenizer"]
    print(
        f"  tokenizer {tokenizer['name']}, {tokenizer['vocab_size']:,} entries, "
        f"{manifest['bytes_per_token']:.2f} bytes per token; unigram loss {manifest['unigram_loss_nats']:.3f} nats"
    )


if __name__ == "__main__":
    raise SystemExit(launch(run, __doc__ or ""))
