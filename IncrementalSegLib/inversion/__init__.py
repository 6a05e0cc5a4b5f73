"""MOSInversion: synthetic CT from a model alone, under organ masks whose shape, place and size are manipulated."""
