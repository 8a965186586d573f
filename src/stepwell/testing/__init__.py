"""The test kit: a clock that tests own, the suite that holds every store to its contract, the laws of a journal."""
