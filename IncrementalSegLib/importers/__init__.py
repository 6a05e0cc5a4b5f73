"""Models of other tools, read without executing anything of theirs into our `Model`."""
