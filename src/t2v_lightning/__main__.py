"""`python -m t2v_lightning` does what `train.py` does in a checkout."""

from t2v_lightning.cli.start import main

if __name__ == "__main__":
    main()
