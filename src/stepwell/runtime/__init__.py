"""The driver: lives of runs, scopes, leases, timers, threads, cancellation. It knows no door."""
