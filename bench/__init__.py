"""Workloads that are measured beside the limit of the disk or server, in the same process."""
