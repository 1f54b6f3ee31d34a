"""Embeds tasks from the command line; see `python train.py --help`."""

from t2v_lightning.cli.start import main

if __name__ == "__main__":
    main()
