"""Models: networks from MONAI by name, exact widening, safe checkpoints and the model package."""
