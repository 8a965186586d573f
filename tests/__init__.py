"""The tests of Stepwell, in rings: pure, simulated, conformance, killed, seen."""
