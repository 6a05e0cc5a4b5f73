"""What stands behind the IncrementalSeg panel: a role per file, no torch."""
