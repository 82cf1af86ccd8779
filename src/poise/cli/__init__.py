"""What the commands share on a terminal, and `poise compact`, which reads and writes files of models."""
