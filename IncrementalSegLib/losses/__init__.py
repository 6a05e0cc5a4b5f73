"""Losses, each a ``torch.nn.Module`` of a few lines of mathematics."""
