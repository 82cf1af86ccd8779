"""What a model does under its penalties: `forces` (force_balance) and `summary` (inventory) are public."""
