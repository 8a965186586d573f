"""What map and parallel return."""
