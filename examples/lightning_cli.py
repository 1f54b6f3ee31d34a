"""A command line of Lightning's own: `LightningCLI` with `Task2Vec` as the module and a task as the data.

    python examples/lightning_cli.py --data.name=faces --model.max_samples=200 --trainer.devices=1

Every option of the module, the datamodule and the Trainer is an option of the command; `--print_config` writes a file
of them, and `--config=FILE` reads one. It needs `pip install "jsonargparse[signatures]"`.
"""

from typing import Any

from pytorch_lightning.cli import LightningCLI

from t2v_lightning import Task2Vec
from t2v_lightning.data.builtin.datamodule import BuiltinDataModule

DEFAULTS: dict[str, Any] = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


class EmbeddingCLI(LightningCLI):
    """Has defaults for the probe and the task."""

    def add_arguments_to_parser(self, parser: Any) -> None:
        parser.set_defaults({"model.probe": "efficientnet_lite0", "data.name": "digits"})


def main(args: list[str] | None = None) -> dict[str, Any]:
    cli = EmbeddingCLI(
        Task2Vec,
        BuiltinDataModule,
        run=False,
        args=args,
        trainer_defaults=DEFAULTS,
        save_config_callback=None,
    )
    cli.trainer.fit(cli.model, cli.datamodule)
    embedding = cli.model.embedding
    print(f"{cli.datamodule.name}: {len(embedding)} entries, norm {embedding.norm:.3f}")
    return {"embedding": embedding, "datamodule": cli.datamodule}


if __name__ == "__main__":
    main()
