"""What a person sees of a fit, and the checkpoints that it leaves: callbacks for a Trainer."""
